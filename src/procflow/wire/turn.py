"""Turn: one thread at a time uses one direction of a descriptor, and a signal handler can't deadlock on it."""

from __future__ import annotations

import threading
import time

from procflow.errors import TimeoutError

__all__ = ["Turn"]


class Turn:
    """Whose turn it is. Like a lock, but a thread that is already inside gets an error instead of a deadlock."""

    __slots__ = ("_busy", "_lock")

    def __init__(self) -> None:
        self._lock = threading.RLock()  # reentrant, so that a signal handler gets as far as the flag
        self._busy = False  # whoever holds the lock

    def enter(self, deadline: float | None = None) -> None:
        """Wait for the turn.

        Raises:
            TimeoutError: Another thread had it all the time until the deadline.
            RuntimeError: This thread has it: a signal handler repeats the call that it interrupted.
        """
        if deadline is None:
            self._lock.acquire()
        elif not self._lock.acquire(timeout=min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)):
            raise TimeoutError("another thread was receiving from this connection all the time given")
        if self._busy:
            self._lock.release()
            raise RuntimeError("reentrant use of a Connection: a signal handler interrupted the call that it repeats")
        self._busy = True

    def try_enter(self) -> bool:
        """Take the turn if nobody has it."""
        if not self._lock.acquire(blocking=False):
            return False
        if self._busy:
            self._lock.release()
            return False
        self._busy = True
        return True

    def leave(self) -> None:
        """End the turn."""
        self._busy = False
        self._lock.release()
