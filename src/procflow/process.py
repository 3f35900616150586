"""Process: multiprocessing's, with another way to be launched, watched and ended.

    initial -> started -> stopped -> closed          initial -> closed

It derives from `multiprocessing.process.BaseProcess`, so the set of children, the end at exit, authkey,
`current_process()` and `parent_process()` are the standard library's own and agree with it. What it replaces is
`_Popen`, the extension point that the standard library's three start methods use themselves; and each use that does
not fit the state is a clear error here, not an `assert` that `python -O` removes.

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
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType
    from typing import Any, Self

    from procflow.errors import ProcessStateError
    from procflow.start.popen import Popen

__all__ = ["ForkProcess", "ForkServerProcess", "Process", "SpawnProcess"]


class Process(_stdlib.BaseProcess):
    """A function, or a subclass's `run()`, in a process of its own.

    Args:
        group: Must be None; it is there because `threading.Thread` has it.
        target: Called in the new process with `args` and `kwargs`.
        name: For people; "Process-1" and so on if not given.
        args: Any iterable.
        kwargs: Any mapping.
        daemon: The process ends with this one, however that ends, and may not have children by Process itself.
            None: as the current process.

    The start method is procflow's default one (`set_start_method`); `get_context("spawn").Process` has a fixed one.

    >>> process = Process(target=print, args=("hello",))
    >>> process.exitcode is None
    True
    """

    _start_method: str | None = None
    _popen: Popen | None
    _parent_pid: int
    _closed: bool

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        if group is not None:
            raise _state_error("group must be None, as there are no groups of processes. Is it the target=?")
        super().__init__(None, target, name, args, {} if kwargs is None else kwargs, daemon=daemon)

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
        """End the process: SIGTERM, and SIGKILL if it still runs after `grace` seconds. Gives its exit code."""
        popen = self._started("stopped")
        popen.terminate()
        self.join(grace)
        if popen.poll() is None:
            popen.kill()
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
        base: Any = super()  # the stubs have only what is documented
        code: int = base._bootstrap(parent_sentinel)
        return code

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


class ForkProcess(Process):
    """A Process that is a fork of this one: it inherits all memory, and no thread but the one that forks."""

    _start_method = "fork"

    @staticmethod
    def _Popen(process: Process) -> Popen:
        from procflow.start.popen import Popen

        return Popen(process, "fork")


class SpawnProcess(Process):
    """A Process in a fresh interpreter."""

    _start_method = "spawn"

    @staticmethod
    def _Popen(process: Process) -> Popen:
        from procflow.start.popen import Popen

        return Popen(process, "spawn")


class ForkServerProcess(Process):
    """A Process forked from a small server that has no threads and next to no memory."""

    _start_method = "forkserver"

    @staticmethod
    def _Popen(process: Process) -> Popen:
        from procflow.start.popen import Popen

        return Popen(process, "forkserver")


def _state_error(text: str) -> ProcessStateError:
    from procflow.errors import ProcessStateError

    return ProcessStateError(text)
