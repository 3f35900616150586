"""Starting a fresh Python interpreter with this one's flags: for the spawn method and for the fork server."""

from __future__ import annotations

import os
import signal
import sys
import threading
from multiprocessing import util

from procflow.start import private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

BLOCKED = (signal.SIGINT, signal.SIGTERM)

_executable: str | bytes | None = None


def set_executable(path: str | bytes | os.PathLike[str]) -> None:
    """Use this interpreter for new children instead of `sys.executable`."""
    global _executable
    _executable = os.fspath(path)


def get_executable() -> str | bytes:
    """The interpreter that new children run."""
    return _executable or sys.executable


def spawn_python(code: str, fds: Iterable[int]) -> int:
    """Run `python -c code` with exactly these fds (and 0, 1, 2) and give its pid.

    SIGINT and SIGTERM stay blocked in the child until it restores the mask it is told (see `blocked_signals`): a
    Ctrl-C during the ~10 ms in which the interpreter boots would print a traceback from `site`.
    """
    executable = os.fsencode(get_executable())
    arguments = [executable, *(os.fsencode(flag) for flag in private.interpreter_flags()), b"-c", code.encode()]
    return util.spawnv_passfds(executable, arguments, sorted(set(fds)))


_thread = threading.local()  # `mask`: what a thread of procflow's own had before it left the signals to the main thread


def leave_signals_to_main() -> None:
    """Called first in a thread of procflow's own: while the main thread blocks Ctrl-C, nobody else is to take it."""
    if hasattr(signal, "pthread_sigmask"):
        _thread.mask = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)


def take_signals_for(call: Callable[[], object]) -> None:
    """In such a thread: call this, user code, with the mask of before, which the programs that it starts inherit."""
    if not hasattr(_thread, "mask"):
        call()
        return
    mask = signal.pthread_sigmask(signal.SIG_SETMASK, _thread.mask)
    try:
        call()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class blocked_signals:
    """Block SIGINT and SIGTERM in this thread for the block; `before` is the mask that children must restore."""

    before: list[int]

    def __enter__(self) -> blocked_signals:
        old = self._old = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self.before = [int(signum) for signum in getattr(_thread, "mask", old)]
        try:  # of a signal that came just before, the call that blocks it tells: by an exception, after the blocking
            signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
        except BaseException:
            signal.pthread_sigmask(signal.SIG_SETMASK, old)
            raise
        return self

    def __exit__(self, *error: object) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._old)
