"""Futures among what is waited for: a descriptor that becomes readable when one of them is done.

A future of a pool, or of `concurrent.futures`: anything with `done()` and `add_done_callback()`.

A1  A future gets one callback, however often it is waited for: a loop over `wait` leaves nothing behind.
A2  A descriptor is never written to after it is closed.
"""

from __future__ import annotations

import os
import weakref
from threading import Lock

from procflow.start import owned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Protocol, Self

    class FutureLike(Protocol):
        """What can be waited for without a descriptor."""

        def done(self) -> bool: ...
        def add_done_callback(self, fn: Callable[[Any], object], /) -> object: ...


__all__ = ["Arrivals"]

_lock = Lock()  # guards what follows, and every descriptor here; never held while waiting
_waiting: weakref.WeakKeyDictionary[FutureLike, set[Arrivals]] = weakref.WeakKeyDictionary()


class Arrivals:
    """While in its block, `fd` becomes readable as soon as one of the futures is done."""

    def __init__(self, futures: Iterable[FutureLike]) -> None:
        self._futures = list(futures)
        self.fd, self._write = owned.pipe()
        os.set_blocking(self._write, False)

    def __enter__(self) -> Self:
        for future in self._futures:
            with _lock:
                waiting = _waiting.get(future)
                is_new = waiting is None
                if waiting is None:
                    waiting = _waiting[future] = set()
                waiting.add(self)
            if is_new:
                future.add_done_callback(_tell(waiting))  # at once if it is done
            if future.done():
                self.note()
        return self

    def __exit__(self, *_: object) -> None:
        with _lock:
            for future in self._futures:
                _waiting[future].discard(self)
            for fd in (self.fd, self._write):
                owned.close(fd)
            self._write = -1

    def note(self) -> None:
        with _lock:
            if self._write >= 0:
                try:
                    os.write(self._write, b"\0")
                except BlockingIOError:
                    pass  # it is readable


def _tell(waiting: set[Arrivals]) -> Callable[[object], None]:
    def tell(_: object) -> None:
        with _lock:
            now = list(waiting)
        for arrivals in now:
            arrivals.note()

    return tell


def _after_fork_in_child() -> None:
    global _lock
    _lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
