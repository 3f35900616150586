"""A pipe that only this process can write, and never does: its end of file says that this process has ended.

Every child gets the reading end. It is multiprocessing's `parent_process().sentinel` there, and a *bound* child arms
it: the kernel itself then kills the child at the hang-up, although a C call may hold the GIL for minutes.

L1  The writing end is open in exactly one process (owned, so no Python fork keeps it; CLOEXEC).
L2  `arm()` looks for a hang-up after it armed, so there is no gap between the two.
"""

from __future__ import annotations

import fcntl
import os
import select
from _thread import start_new_thread

from procflow.start import owned

_SIGKILL = 9

_ends: tuple[int, int] | None = None


def reading_end() -> int:
    """The end to pass on to children. It belongs to this module; don't close it."""
    global _ends
    with owned.opening:
        if _ends is None:
            _ends = owned.pipe()
        return _ends[0]


def arm(fd: int) -> None:
    """Make this process die by SIGKILL as soon as the lifeline `fd` hangs up."""
    if not _signal_on_hangup(fd):
        start_new_thread(_watch, (fd,))
    elif _hung_up(fd):
        os.kill(os.getpid(), _SIGKILL)


def _hung_up(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _signal_on_hangup(fd: int) -> bool:
    """Ask the kernel to send SIGKILL to this process when `fd` hangs up. False where that is not to be had.

    O_ASYNC and its owner belong to the open file description, which all children share, so each opens one of its own
    through /proc. Before Linux 5.6 pipe_release() signalled whenever *any* reader closed, which would kill a worker
    because its sibling ended (fs/pipe.c; since then only "the last reader or writer, but not the other side").
    """
    if not _KERNEL_CAN:
        return False
    try:
        private = owned.own(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        fcntl.fcntl(private, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(private, fcntl.F_SETSIG, _SIGKILL)
        fcntl.fcntl(private, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
    except OSError:
        return False
    return True


def _linux_version() -> tuple[int, ...]:
    system = os.uname()
    if system.sysname != "Linux":
        return (0,)
    numbers = system.release.split("-")[0].split(".")[:2]
    return tuple(int(n) if n.isdigit() else 0 for n in numbers)


_KERNEL_CAN = _linux_version() >= (5, 6)  # asked once, by the server, and not by each of its forks


def _watch(fd: int) -> None:
    # The portable way. It needs the GIL to act, so a C call that holds it delays the end.
    while not _blocking_read_ended(fd):
        pass
    os.kill(os.getpid(), _SIGKILL)


def _blocking_read_ended(fd: int) -> bool:
    try:
        return not os.read(fd, 1)
    except OSError:
        return True


def _after_fork_in_child() -> None:
    # The ends were closed by `owned` (or the reading one is kept as this child's parent sentinel): make our own.
    global _ends
    _ends = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
