"""How much memory a worker has for itself. Between two packets it is compared with the pool's limit."""

from __future__ import annotations

import os
from time import perf_counter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Meter", "check_measurable"]

STATM, ROLLUP = "/proc/self/statm", "/proc/self/smaps_rollup"  # proc(5)
DIRTY = b"Private_Dirty:"  # pages that this process has written and no other one has: kB
CAN_MEASURE = os.path.exists(ROLLUP)  # else by psutil
RARELY = 10  # times as long as the measurement took is the time to the next


class Meter:
    """Tells whether this process has more than `limit` bytes of memory that no other process shares.

    Pages of a fork that are still the parent's do not count, nor do shared arrays; a new worker would have them, too.
    """

    def __init__(self, limit: int, *, portable: bool = False) -> None:
        self._limit = limit
        self._resident, self._private = (resident, private) if CAN_MEASURE and not portable else _by_psutil()
        self._next = 0.0

    def is_exceeded(self) -> bool:
        """What is resident is an upper bound, and quickly read; the other takes longer, the more there is."""
        if self._resident() <= self._limit:
            return False
        began = perf_counter()
        if began < self._next:
            return False
        exceeded = self._private() > self._limit
        now = perf_counter()
        self._next = now + RARELY * (now - began)
        return exceeded


def check_measurable() -> None:
    """Raise ModuleNotFoundError if no process of this system could be measured."""
    from importlib.util import find_spec

    if not CAN_MEASURE and find_spec("psutil") is None:
        raise ModuleNotFoundError(
            "max_memory_per_worker: this system does not tell how much memory a process has for itself, so psutil is "
            "needed. Install it: pip install 'procflow[memory]'"
        )


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(_read(STATM).split()[1]) * os.sysconf("SC_PAGE_SIZE")


def private() -> int:
    """Bytes that this process alone has written to."""
    text = _read(ROLLUP)
    return int(text[text.index(DIRTY) + len(DIRTY) :].split(maxsplit=1)[0]) * 1024


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


def _by_psutil() -> tuple[Callable[[], int], Callable[[], int]]:
    import psutil

    process = psutil.Process()
    return lambda: process.memory_info().rss, lambda: process.memory_full_info().uss
