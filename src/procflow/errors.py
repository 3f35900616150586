"""Every error that procflow raises, and nothing else.

Each derives from `ProcflowError` and from the standard library's type that a user already catches. Each says what
happened, to what, why probably, and what to do next; it carries the facts as attributes, and it pickles as it is:
the arguments of the constructor are the arguments of the exception.
"""

from __future__ import annotations

import builtins
import concurrent.futures
import multiprocessing.context
import pickle
import signal

__all__ = [
    "CancelledError",
    "EngineError",
    "ExecutorClosed",
    "InitializerError",
    "NoCurrentTask",
    "PeerReset",
    "PicklingError",
    "PoolBusy",
    "PoolClosed",
    "ProcessDied",
    "ProcessStateError",
    "ProcflowError",
    "ProtocolError",
    "RemoteError",
    "RemoteTraceback",
    "SupervisorGaveUp",
    "TaskKilled",
    "TaskTimeout",
    "TimeoutError",
    "TruncatedMessage",
    "UnpicklingError",
    "WorkerDied",
    "describe_exit",
]


class ProcflowError(Exception):
    """The base of every error that procflow raises itself.

    Attributes:
        story: What the pool did with the task before it failed, a line for each step, in their order; it is among the
            exception's notes, too. Empty where no pool is concerned.
    """

    story: tuple[str, ...] = ()


class TimeoutError(ProcflowError, multiprocessing.context.TimeoutError, builtins.TimeoutError):  # noqa: A001
    """The result was not there within the time that the caller gave. The task goes on."""


class TaskTimeout(TimeoutError):
    """The task ran for longer than its pool's `options(timeout=)` allows, so its worker was ended. It has run in part.

    Attributes:
        task: The index of the task in its call, as in `WorkerDied`.
        timeout: How many seconds were allowed.
        pid: The process id that the worker had.
        stack: What the worker's threads were doing then, as text; empty where the system can't tell.
    """

    def __init__(self, task: int, timeout: float, pid: int, stack: str = "") -> None:
        super().__init__()  # of several arguments OSError, its base, would make an errno and a file name
        self.args = (task, timeout, pid, stack)
        self.task, self.timeout, self.pid, self.stack = task, timeout, pid, stack

    def __str__(self) -> str:
        did = f" It was here:\n{self.stack}" if self.stack else ""
        return (
            f"task {self.task} ran for longer than {self.timeout} s, so its worker {self.pid} was ended. Is something "
            f"that it waits for missing? Else allow it more time.{did}"
        )


class CancelledError(ProcflowError, concurrent.futures.CancelledError):
    """The task was cancelled before it started; it never ran."""


class TaskKilled(CancelledError):
    """The task was ended by `Future.kill()` while it ran, with its worker.

    Attributes:
        task: The index of the task in its call, as in `WorkerDied`.
        pid: The process id that the worker had.
    """

    def __init__(self, task: int, pid: int) -> None:
        super().__init__(task, pid)
        self.task, self.pid = task, pid

    def __str__(self) -> str:
        return f"task {self.task} was ended by kill() while worker {self.pid} ran it; it has run in part"


class PoolClosed(ProcflowError, ValueError):
    """The pool takes no more work: it was closed or terminated, or it belongs to another process."""


class EngineError(PoolClosed, ConnectionError):
    """The cluster or executor that a pool runs on is gone, or can't run its tasks. What was pending may have run."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return self.text


class ExecutorClosed(PoolClosed, RuntimeError):
    """The executor takes no more work: it was shut down, or it belongs to another process."""


class PoolBusy(ProcflowError, RuntimeError):
    """A signal handler or a finalizer used a pool that its own thread was at work in; nothing was done."""

    def __str__(self) -> str:
        return (
            "this signal handler or finalizer has interrupted the pool that it uses, and its thread, amid a step. "
            "Set a flag or an event there, and use the pool where the program goes on; terminate() works anywhere."
        )


class NoCurrentTask(ProcflowError, RuntimeError):
    """`current_task()` was called where no task of a pool runs."""

    def __str__(self) -> str:
        return (
            "no task of a pool runs here: current_task() is for functions that a pool calls, and for what they call. "
            "In one that is called otherwise too, catch this error"
        )


class ProcessStateError(ProcflowError, AssertionError):
    """This use of a Process does not fit its state, such as a second start(), or join() before start()."""


class PicklingError(ProcflowError, pickle.PicklingError):
    """An argument, a function or a result can't be pickled, so it can't cross to another process."""


class UnpicklingError(ProcflowError, pickle.UnpicklingError):
    """What the other process sent was pickled there, but can't be rebuilt here."""


class ProtocolError(ProcflowError, OSError):
    """What came is no message: another program wrote to the pipe, or a message was cut off. No more can be read."""


class TruncatedMessage(ProcflowError, OSError, EOFError):
    """The other end was closed, or its process ended, in the middle of a message. What came of it is dropped."""


class PeerReset(ProcflowError, ConnectionResetError, EOFError):
    """The other end was closed while it had messages unread that this end had sent."""


class RemoteError(ProcflowError, RuntimeError):
    """Stands in for an exception of a task that can't itself cross: its type's name, its repr and its traceback."""

    def __init__(self, type_name: str, text: str, traceback: str, why: str) -> None:
        super().__init__(type_name, text, traceback, why)
        self.type_name, self.text, self.traceback, self.why = type_name, text, traceback, why

    def __str__(self) -> str:
        return (
            f"the task raised {self.type_name}: {self.text}\n"
            f"That exception can't be passed between processes ({self.why}), so this error stands in for it. "
            "Give the exception arguments that pickle, or a __reduce__."
        )


class RemoteTraceback(Exception):
    """The traceback of another process, as text (`tb`): the `__cause__` of an exception that a task raised there."""

    def __init__(self, tb: str) -> None:
        super().__init__(tb)
        self.tb = tb

    def __str__(self) -> str:
        return f'\n"""\n{self.tb}"""'


class WorkerDied(ProcflowError, RuntimeError):
    """The worker died while it held the task; `started` tells whether the task had begun.

    Attributes:
        task: The index of the task in its call: the position in the input of a map, with a `chunksize` that of the
            first item which is lost; 0 for a single call.
        pid: The process id that the worker had; 0 if it is not known, as on a cluster.
        exitcode: As in `Process.exitcode`: -N for signal N; None if it could not be learnt.
        started: True if the task may have run, so that only an idempotent one may be tried again.
        detail: What a cluster says of it.
    """

    def __init__(self, task: int, pid: int, exitcode: int | None, started: bool, detail: str = "") -> None:
        super().__init__(task, pid, exitcode, started, detail)
        self.task, self.pid, self.exitcode, self.started = task, pid, exitcode, started
        self.detail = detail

    def __str__(self) -> str:
        held = "which had started" if self.started else "which had not started"
        if not self.pid:
            return f"a worker of the cluster was lost holding task {self.task}, which may have started. {self.detail}"
        ended = describe_exit(self.exitcode)
        return f"worker {self.pid} {ended} holding task {self.task}, {held}. {_advice(self.exitcode)}"


class ProcessDied(ProcflowError, RuntimeError):
    """The process ended before its target had returned or raised anything, so it has no result.

    Its `__cause__` is what ended it, if that was an exception that ends programs, such as KeyboardInterrupt.

    Attributes:
        name: The name of the process.
        pid: The process id that it had.
        exitcode: As in `Process.exitcode`: -N for signal N.
    """

    def __init__(self, name: str, pid: int, exitcode: int | None) -> None:
        super().__init__(name, pid, exitcode)
        self.name, self.pid, self.exitcode = name, pid, exitcode

    def __str__(self) -> str:
        ended = describe_exit(self.exitcode)
        return f"process {self.name!r} (pid {self.pid}) {ended} before its target returned. {_advice(self.exitcode)}"


class SupervisorGaveUp(ProcflowError, RuntimeError):
    """A supervised child fell too often, so its supervisor has stopped all of its children.

    Attributes:
        name: The child.
        why: How it fell the last time: "crashed", "not ready", "silent", "not started", "finished".
        max_restarts: How many restarts were allowed...
        within: ...in so many seconds.
        detail: What else is known, such as why it could not be started.
    """

    def __init__(self, name: str, why: str, max_restarts: int, within: float, detail: str = "") -> None:
        super().__init__(name, why, max_restarts, within, detail)
        self.name, self.why, self.max_restarts, self.within, self.detail = name, why, max_restarts, within, detail

    def __str__(self) -> str:
        more = f" ({self.detail})" if self.detail else ""
        return (
            f"child {self.name!r} fell again ({self.why}){more} after {self.max_restarts} restarts within "
            f"{self.within} s, so the supervisor has stopped all. Its own output says why it fell; for a slow "
            "recovery allow more restarts, or a longer backoff."
        )


class InitializerError(ProcflowError, RuntimeError):
    """The pool's workers end before they are ready, one after the other, so no task can run.

    Its initializer raises or ends the worker, or its arguments can't be rebuilt there; or the system starts no process.

    Attributes:
        attempts: How many workers in a row have failed.
        text: What became of the last: a traceback, or how that worker ended.
    """

    def __init__(self, attempts: int, text: str) -> None:
        super().__init__(attempts, text)
        self.attempts, self.text = attempts, text

    def __str__(self) -> str:
        return (
            f"no worker of the pool became ready, in {self.attempts} attempts, so the pool's tasks were not run. "
            f"{self.text}"
        )


def describe_exit(exitcode: int | None) -> str:
    """Say in words how a process ended: `died (SIGKILL)`, `exited with code 3`."""
    if exitcode is None:
        return "ended in an unknown way"
    if exitcode >= 0:
        return f"exited with code {exitcode}"
    try:
        return f"died ({signal.Signals(-exitcode).name})"
    except ValueError:
        return f"died (signal {-exitcode})"


def _advice(exitcode: int | None) -> str:
    if exitcode is not None and exitcode >= 0:
        return "Did it call sys.exit() or os._exit()? Return a value or raise an exception instead."
    if exitcode == -signal.SIGKILL:
        return "SIGKILL is often the kernel's out-of-memory killer: run fewer processes at once, or with less data."
    if exitcode in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL):
        return "That is a crash in native code: run the same call alone, with `python -X faulthandler`."
    return "Something outside of it ended it."
