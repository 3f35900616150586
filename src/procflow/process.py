"""Process: multiprocessing's, with another way to be launched, watched and ended.

    initial -> started -> stopped -> closed          initial -> closed

It derives from `multiprocessing.process.BaseProcess`, so the set of children, the end at exit, authkey,
`current_process()` and `parent_process()` are the standard library's own and agree with it. What it replaces is
`_Popen`, the extension point that the standard library's three start methods use themselves; and each use that does
not fit the state is a clear error here, not an `assert` that `python -O` removes.

What the target returns or raises waits in a file that the child writes before it ends (`worker.result`), so join()
has nothing to read, and a process whose result nobody asks for costs one file more.

Import-light: every spawned child imports this.
"""

from __future__ import annotations

import os
import sys
from multiprocessing import process as _stdlib

from procflow.start import child
from procflow.start.main_module import stop_replay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType
    from typing import Any, Generic, Self

    from typing_extensions import TypeVar

    from procflow.errors import ProcessStateError
    from procflow.start.popen import Popen
    from procflow.worker.result import File, Raised, Refused, Value

    R_co = TypeVar("R_co", covariant=True, default=Any)
else:
    from procflow.generic import Generic

    R_co = None


__all__ = ["ForkProcess", "ForkServerProcess", "Process", "SpawnProcess"]

KILLED_WITHIN = 1.0  # seconds: a killed process is gone at once, unless the system keeps it, as with a disk that hangs


class Process(_stdlib.BaseProcess, Generic[R_co]):
    """A function, or a subclass's `run()`, in a process of its own.

    `Process[R]` has a target that returns R, or a `run()` that does; `result()` gives it.

    Args:
        group: Must be None; it is there because `threading.Thread` has it.
        target: Called in the new process with `args` and `kwargs`.
        name: For people; "Process-1" and so on if not given.
        args: Any iterable.
        kwargs: Any mapping.
        daemon: The process ends with this one, however that ends, and may not have children by Process itself.
            None: as the current process.
        env: Variables that the process has in its environment before it imports anything, beside those of this one.
            Under fork there is nothing to import: what this process has imported has read its own. Those that the
            interpreter itself looks at when it starts, such as PYTHONHASHSEED, come too late.
        preload: Names of modules that the fork server imports before it makes this process, once, so that this process
            and all that follow have them at no cost, and share the memory. They do not see `env`. A hint, as is
            `set_forkserver_preload`: the other start methods have no server, and what can't be imported there is not.

    Raises:
        TypeError: `env` is no mapping of strings, or `preload` no list of them.
        ValueError: A name or a value is one that no environment can have, or a name that no module can have.

    The start method is procflow's default one (`set_start_method`); `get_context("spawn").Process` has a fixed one.

    >>> process = Process(target=print, args=("hello",))
    >>> process.exitcode is None
    True
    """

    _start_method: str | None = None
    _popen: Popen | None
    _parent_pid: int
    _closed: bool
    _env: dict[str, str] | None = None
    _preload: tuple[str, ...] = ()
    _bound = False  # whether it ends with this process as a daemonic one does, and yet may have children
    _result_file: File | None = None  # in the child: where the result goes
    _outcome: Value | Raised | Refused | None = None  # in the parent, once it was read

    def __init__(
        self,
        group: None = None,
        target: Callable[..., R_co] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        daemon: bool | None = None,
        env: Mapping[str, str] | None = None,
        preload: Sequence[str] = (),
    ) -> None:
        if group is not None:
            raise _state_error("group must be None, as there are no groups of processes. Is it the target=?")
        super().__init__(None, target, name, args, {} if kwargs is None else kwargs, daemon=daemon)
        if env is not None or preload != ():
            from procflow.start.surroundings import checked_env, checked_preload

            self._env = None if env is None else checked_env(env)
            self._preload = checked_preload(preload)

    @staticmethod
    def _Popen(process: Process) -> Popen:
        """Launch `process`. multiprocessing's extension point; the subclasses say by which method."""
        from procflow import context

        return context.default_context.get_context().Process._Popen(process)

    def start(self) -> None:
        """Start the process. Once per object.

        Raises:
            ProcessStateError: It was started already, was made by another process, or this process is daemonic.
            OSError: The system has no room for another process or another fd.
        """
        stop_replay()
        self._check_open()
        if self._popen is not None:
            raise _state_error(f"{self!r} can't be started twice: make another Process object")
        self._check_ours("started")
        current = _stdlib.current_process()
        if current.daemon:
            raise _state_error(
                f"daemonic processes are not allowed to have children, and {current.name!r} is one: it can't start "
                f"{self.name!r}. Start {current.name!r} with daemon=False, or use a Pool: its workers may have children"
            )
        given = dict(vars(self))  # start() drops the target and its arguments
        super().start()
        connection = sys.modules.get("procflow.connection")
        if connection is not None:  # Connections among them: their other ends see EOF when this process dies
            inherits = self._started("watched").method == "fork"
            connection.note_launch(self._popen, connection.connections_in(given, inherited=inherits))

    def join(self, timeout: float | None = None) -> None:
        """Wait until the process has ended, at most `timeout` seconds; `exitcode` tells whether it has."""
        self._check_ours("joined")
        self._started("joined")
        super().join(timeout)

    def bind(self) -> None:
        """Before start(): have the process end with this one, however that ends; unlike a daemonic one, it may have
        children.
        """
        self._bound = True

    def result(self, timeout: float | None = None) -> R_co:
        """Wait for the process, at most `timeout` seconds, and return what its target (or its `run()`) returned.

        It may be called again, and does not change `exitcode`. Large arrays in a result are not copied.

        Raises:
            Exception: What the target raised, with the traceback of the process as its `__cause__`.
            ProcessDied: The process ended before that: by a signal, by sys.exit(), by an interrupt.
            TimeoutError: It still runs.
            PicklingError: What the target returned can't be pickled.
        """
        self.join(timeout)
        popen = self._started("asked for its result")
        if self._outcome is None:
            if popen.poll() is None:
                from procflow.errors import TimeoutError

                raise TimeoutError(f"{self.name!r} still runs after {timeout} s; wait again, or stop() it")
            self._outcome = self._read_result(popen)
        value: R_co = _value_of(self._outcome, self.name)
        return value

    def _read_result(self, popen: Popen) -> Value | Raised | Refused:
        from procflow.errors import ProcessDied
        from procflow.worker.result import Raised, read_result

        outcome = read_result(popen.result_fd)
        if outcome is None or (isinstance(outcome, Raised) and not isinstance(outcome.error, Exception)):
            died = ProcessDied(self.name, popen.pid, popen.poll())
            died.__cause__ = outcome.error if outcome is not None else None
            outcome = Raised(died)
        popen.forget_result()
        return outcome

    def run(self) -> R_co:  # type: ignore[override]  # multiprocessing's returns None
        """Call the target, in the new process. A subclass may do something else; `result()` gives what it returns."""
        parts: Any = self  # the stubs do not have them
        value: Any = parts._target(*parts._args, **parts._kwargs) if parts._target else None
        result: R_co = value
        return result

    def is_alive(self) -> bool:
        """Whether the process has been started and has not ended. Never blocks."""
        self._check_open()
        if self is not _stdlib.current_process():
            self._check_ours("asked whether it is alive")
        return super().is_alive()

    def terminate(self) -> None:
        """Send SIGTERM. Nothing if the process has ended."""
        self._started("terminated").terminate()

    def kill(self) -> None:
        """Send SIGKILL, which no process can refuse. Nothing if the process has ended."""
        self._started("killed").kill()

    def interrupt(self) -> None:
        """Send SIGINT, which raises KeyboardInterrupt in Python code. Nothing if the process has ended."""
        self._started("interrupted").interrupt()

    def stop(self, grace: float = 5.0) -> int | None:
        """End the process and the processes below it. Gives its exit code.

        It gets SIGTERM, and SIGKILL if it still runs after `grace` seconds. What is then left of the processes that it
        had started, and they in turn, gets SIGKILL (on Linux; elsewhere only daemonic ones end with it).
        """
        popen = self._started("stopped")
        if popen.poll() is not None:
            self.join()
            return self.exitcode
        from procflow.start.family import Family

        family = Family(popen.pid)
        try:
            popen.terminate()
            self.join(grace)
        finally:  # also when Ctrl-C has ended the waiting
            if popen.poll() is None:
                family.look()
                popen.kill()
            family.kill(wait=KILLED_WITHIN)
        self.join()
        return self.exitcode

    def __enter__(self) -> Self:
        """Start the process, unless it was started already."""
        if self._popen is None:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Wait for the process; after an exception in the block, stop it."""
        if self._closed:
            return
        if error is None:
            self.join()
        else:
            self.stop()

    def _bootstrap(self, parent_sentinel: int | None = None) -> int:
        # In the child. A process of a fixed method has that as its default method, as under multiprocessing.
        if self._start_method is not None:
            child.adopt_start_method(self._start_method)
        connection = sys.modules.get("procflow.connection")
        if child.forked and connection is not None:  # copies that came with the fork would hide the ends' closing
            connection.close_unpassed_ends(connection.connections_in(vars(self), inherited=True))
        if self._result_file is not None:
            vars(self)["run"] = self._run_for_result  # what _bootstrap() calls
        base: Any = super()  # the stubs have only what is documented
        code: int = base._bootstrap(parent_sentinel)
        return code

    def _run_for_result(self) -> None:
        file = self._result_file
        assert file is not None
        del vars(self)["run"]
        try:
            value = self.run()
        except SystemExit:
            raise
        except BaseException as error:
            from procflow.worker.result import keep_failure

            keep_failure(file, error)
            raise
        from procflow.worker.result import keep_value  # the fork server and a forking parent have it imported

        keep_value(file, value)

    @staticmethod
    def _after_fork() -> None:
        # Called by BaseProcess._bootstrap() after unpickling; what that has registered must stay.
        if child.forked:
            base: Any = _stdlib.BaseProcess
            base._after_fork()

    def __setattr__(self, name: str, value: object) -> None:
        # A property would have to override what the standard library's type stubs call a variable.
        if name == "daemon" and self._popen is not None:
            raise _state_error(f"{self!r} has been started: it can't change whether it is daemonic")
        super().__setattr__(name, value)

    def _check_open(self) -> None:
        if "_closed" not in vars(self):
            raise _state_error(f"the __init__() of {type(self).__qualname__} has to call super().__init__() first")
        if self._closed:
            raise ValueError("process object is closed")

    def _check_ours(self, done: str) -> None:
        self._check_open()
        if self._parent_pid != os.getpid():
            raise _state_error(
                f"the process {self.name!r} can only be {done} by the process that made it "
                f"(pid {self._parent_pid}; this is {os.getpid()})"
            )

    def _started(self, done: str) -> Popen:
        self._check_open()
        if self._popen is None:
            raise _state_error(f"the process {self.name!r} can't be {done} before start()")
        return self._popen


class ForkProcess(Process[R_co]):
    """A Process that is a fork of this one: it inherits all memory, and no thread but the one that forks."""

    _start_method = "fork"

    @staticmethod
    def _Popen(process: Process) -> Popen:
        from procflow.start.popen import Popen
        from procflow.wire import pickling
        from procflow.worker import result

        _ = pickling, result  # imported once here, and not again in each child

        return Popen(process, "fork")


class SpawnProcess(Process[R_co]):
    """A Process in a fresh interpreter."""

    _start_method = "spawn"

    @staticmethod
    def _Popen(process: Process) -> Popen:
        from procflow.start.popen import Popen

        return Popen(process, "spawn")


class ForkServerProcess(Process[R_co]):
    """A Process forked from a small server that has no threads and next to no memory."""

    _start_method = "forkserver"

    @staticmethod
    def _Popen(process: Process) -> Popen:
        from procflow.start.popen import Popen

        return Popen(process, "forkserver")


def _value_of(outcome: Value | Raised | Refused, name: str) -> Any:
    from procflow.errors import PicklingError
    from procflow.worker.result import Raised, Refused

    if isinstance(outcome, Raised):
        raise outcome.error
    if isinstance(outcome, Refused):
        raise PicklingError(
            f"the target of process {name!r} returned something that can't be pickled, so it can't come back: "
            f"{outcome.why}. Return plain data instead."
        )
    return outcome.value


def _state_error(text: str) -> ProcessStateError:
    from procflow.errors import ProcessStateError

    return ProcessStateError(text)
