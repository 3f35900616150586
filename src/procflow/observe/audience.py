"""Who listens to a pool: the callbacks, and what they were not told yet.

U1  What happens is taken in by the thread that leads, which never runs a callback for it: those run with the callbacks
    of futures, one at a time and without a lock.
U2  At most WAITING events wait; more are dropped, counted, and told of as `EventsLost` where they are missing.
"""

from __future__ import annotations

from collections import deque

from procflow.observe import events
from procflow.start.interrupted import of_a_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Any, Self

    from procflow.dispatch.callbacks import Callbacks
    from procflow.observe.events import Event

__all__ = ["WAITING", "Audience", "Subscription"]

WAITING = 10_000  # events

_KINDS: dict[object, Callable[..., Event]] = {
    "starting": events.WorkerStarting,
    "started": events.WorkerStarted,
    "retired": events.WorkerRetired,
    "ended": events.WorkerEnded,
    "sent": events.PacketSent,
    "done": events.PacketDone,
    "returned": events.PacketReturned,
    "failed": events.TaskFailed,
    "retried": events.TaskRetried,
}


class Subscription:
    """What `subscribe` returns: it ends with `close()`, or with the `with` block that it is used in."""

    def __init__(self, end: Callable[[], object]) -> None:
        self._end: Callable[[], object] | None = end

    def close(self) -> None:
        """Call the callback no more. Idempotent."""
        end, self._end = self._end, None
        if end is not None:
            end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Subscription: {'closed' if self._end is None else 'open'}>"


class Audience:
    """See the module."""

    def __init__(self) -> None:
        self.listeners: tuple[Callable[[Event], object], ...] = ()
        self._waiting: deque[Event] = deque()
        self._lost = 0

    def tell(
        self, happened: Iterable[tuple[Any, ...]], function_of: Callable[[int], object], callbacks: Callbacks
    ) -> None:
        """Take in what has happened, and have it told. Called by one thread at a time."""
        idle = not self._waiting
        for one in happened:
            event = _event_of(one, function_of)
            if len(self._waiting) >= WAITING:
                self._lost += 1
                continue
            if self._lost:
                self._waiting.append(events.EventsLost(event.time, self._lost))
                self._lost = 0
            self._waiting.append(event)
        if idle and self._waiting:
            callbacks.append(self._call)

    def _call(self) -> None:
        """Call the listeners with what waits. One by one: what comes meanwhile finds room."""
        while self._waiting:
            event = self._waiting[0]
            for listener in self.listeners:
                try:
                    listener(event)
                except BaseException as error:
                    if of_a_signal(error):
                        raise
                    import logging

                    logging.getLogger("procflow").exception("what listens to a pool raised; the pool goes on")
            self._waiting.popleft()


def _event_of(one: tuple[Any, ...], function_of: Callable[[int], object]) -> Event:
    kind, *facts = one
    if kind == "submitted":
        time, job, first, items = facts
        function = function_of(job)
        name = "" if function is None else getattr(function, "__qualname__", "") or repr(function)
        return events.TasksSubmitted(time, job, first, items, name)
    if kind == "lost":
        time, _, job, first, items, why = facts
        return events.TaskFailed(time, job, first, items, why)
    return _KINDS[kind](*facts)
