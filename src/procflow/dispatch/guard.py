"""The pool's lock, which notices when a block under it was not finished."""

from __future__ import annotations

import threading

__all__ = ["Guard"]


class Guard:
    """A lock for `with`. No user code runs under it and its blocks raise nothing, so an exception that leaves one is
    Ctrl-C between two steps: what it guards may be torn, and the pool is terminated rather than trusted.
    """

    __slots__ = ("_acquire", "_release", "torn")

    def __init__(self) -> None:
        lock = threading.Lock()
        self._acquire, self._release = lock.acquire, lock.release
        self.torn = False

    def __enter__(self) -> None:
        self._acquire()

    def __exit__(self, kind: object, error: object, where: object) -> None:
        if kind is not None:
            self.torn = True
        self._release()
