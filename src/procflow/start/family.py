"""The processes below one: found in /proc, and held by pidfd, so that a signal never goes to a stranger.

When a process has ended, its children belong to nobody that could name them; so they are looked up before it ends.
Where there is no /proc or no pidfd, nothing is found, and only processes that are bound to their parent end with it.
"""

from __future__ import annotations

import os
import select
import signal
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Family:
    """The processes below `pid`, as they were at the last `look()`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._held: dict[int, int] = {}  # pid -> pidfd
        self.look()

    def look(self) -> None:
        """Add those that are there now."""
        if not hasattr(os, "pidfd_open"):
            return
        found = [pid for pid in _below(self._pid, _parents()) if pid not in self._held]
        for pid in found:
            try:
                self._held[pid] = os.pidfd_open(pid)
            except OSError:  # it has ended, or no descriptor is left
                continue
        # A number may have gone to another process between the look and the opening; a second look tells.
        still = set(_below(self._pid, _parents())) if found else set[int]()
        for pid in found:
            if pid not in still and pid in self._held:
                os.close(self._held.pop(pid))

    def kill(self, wait: float = 0.0) -> None:
        """End all that still run, and let go of them; wait for so many seconds at most until they have ended."""
        ending: list[int] = []
        try:
            while self._held:
                _, pidfd = self._held.popitem()
                ending.append(pidfd)
                try:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                except OSError:  # it has ended, or is another user's
                    os.close(ending.pop())
            deadline = monotonic() + wait
            for pidfd in ending:
                if (left := deadline - monotonic()) > 0.0:
                    ended = select.poll()
                    ended.register(pidfd, select.POLLIN)  # it can be read when its process has ended
                    ended.poll(left * 1000)
        finally:
            for pidfd in ending:
                os.close(pidfd)


def _parents() -> dict[int, int]:
    """pid -> parent's pid, of every process that can be seen."""
    found: dict[int, int] = {}
    try:
        names = os.listdir("/proc")
    except OSError:
        return found
    for name in names:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    found[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError):  # it has ended meanwhile
                continue
    return found


def _below(pid: int, parents: dict[int, int]) -> Iterator[int]:
    level = {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level}
        yield from level
