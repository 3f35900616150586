"""multiprocessing's resource tracker: one for the family, which need not run before somebody asks for it.

    NONE -> RESERVED        reserve(): there is a pipe for it, whose writing end forked workers inherit
    RESERVED -> STARTED     multiprocessing.resource_tracker is imported: here, or in a worker, which says so
    NONE -> STARTED         ensure_running(), or multiprocessing itself

The tracker is an interpreter of its own, which boots while a pool's first tasks want the processors; and nothing but
named semaphores and shared memory needs it. It must be one: a worker that starts its own loses, at its end, the shared
memory that its tasks have made.

R1  The reading end is in one process, the one that reserved it, and nowhere once the tracker has it; so who writes to a
    tracker that is dead learns so.
R2  What workers write before the tracker runs waits in the pipe. Who closes a pool looks whether there is something.
    So it does if the system has no room for a process now; a pipe that is full is then an error, and nobody waits.
R3  A fork that is no worker of a pool knows nothing of the pipe: there, multiprocessing does what it always does.
"""

from __future__ import annotations

import os
import select
import sys
from contextlib import suppress

from procflow.start import adopt, interpreter, owned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

__all__ = ["ensure_running", "follow", "reserve", "settle", "start", "writing_end"]

_MODULE = "multiprocessing.resource_tracker"
_CODE = "from multiprocessing.resource_tracker import main;main({fd})"

_ends: tuple[int, int] | None = None  # of the reserved pipe, both `owned`; a worker has -1 for the reading end
_ask: Callable[[], object] | None = None  # in a worker: have the process that has the reading end start the tracker


def ensure_running() -> None:
    """Have the tracker run."""
    from multiprocessing import resource_tracker  # if a pipe is reserved, this starts it

    resource_tracker.ensure_running()


def start() -> None:
    """Start the tracker if a pipe is reserved for it. Raises nothing: without it, a worker starts one of its own."""
    with suppress(ImportError):
        __import__(_MODULE)


def reserve() -> None:
    """Be ready to start the tracker, for workers that will be forked. Start it now if its module is imported already:
    somebody has a use for it, and there is no import to wait for.
    """
    global _ends
    with owned.opening:
        if _ends is None and _MODULE not in sys.modules:
            _ends = owned.pipe()
            sys.meta_path.insert(0, adopt.Adopter({_MODULE: _on_import}))
    if _MODULE in sys.modules:
        ensure_running()


def writing_end() -> list[int]:
    """The fd that a forked worker is to keep, for `follow`; none if nothing is reserved."""
    return [] if _ends is None else [_ends[1]]


def follow(fds: list[int], ask: Callable[[], object]) -> None:
    """In a forked worker: use the pipe of which the parent said `writing_end()`; `ask` has it start the tracker."""
    global _ends, _ask
    for fd in fds:
        _ends, _ask = (-1, fd), ask


def settle() -> None:
    """Start the tracker if a worker has written to it, and did not come to say so, or found no room for it (R2)."""
    if _ends is None or _ends[0] < 0:
        return
    poll = select.poll()
    poll.register(_ends[0], select.POLLIN)
    if poll.poll(0):
        if _MODULE in sys.modules:
            _on_import(sys.modules[_MODULE])
        else:
            start()


def _on_import(module: ModuleType) -> None:
    global _ends
    with owned.opening:  # no fork meets the pipe when it is neither reserved nor the tracker's
        ends, _ends = _ends, None
        if ends is None:
            return
        reading, writing = ends
        if reading < 0:
            _use(module, writing)
        else:
            _launch(module, reading, writing)
            return
    if _ask is not None:
        with suppress(OSError):  # the pool is gone; or a task has closed the pipes
            _ask()


def _launch(module: ModuleType, reading: int, writing: int) -> None:
    global _ends
    try:
        with interpreter.blocked_signals():  # the tracker unblocks them when it has said that it ignores them
            pid = interpreter.spawn_python(_CODE.format(fd=reading), [reading, *_stderr()])
    except OSError:  # no process can be started: multiprocessing will try when it needs one here, and say what is wrong
        os.set_blocking(writing, False)
        _ends = reading, writing
        return
    os.set_blocking(writing, True)
    owned.close(reading)
    if module._resource_tracker._fd is None:
        _use(module, writing, pid)
    else:  # since there was no room, another one was started for this process
        owned.close(writing)


def _use(module: ModuleType, writing: int, pid: int | None = None) -> None:
    owned.disown(writing)  # as multiprocessing has it: forks use it, too
    module._resource_tracker._fd, module._resource_tracker._pid = writing, pid


def _stderr() -> list[int]:
    """Where the tracker tells what was leaked."""
    try:
        return [sys.stderr.fileno()]
    except Exception:  # noqa: BLE001 - no stream, or any object that a program has put there
        return []


def _after_fork_in_child() -> None:
    global _ends, _ask
    _ends = _ask = None  # `owned` has closed them, or `follow` tells


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
