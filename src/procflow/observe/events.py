"""What happens in a pool, as typed events: what `Pool.subscribe` gives to its callback.

Times are seconds of `time.monotonic()` in the pool's process. A job is one call of the pool, by its number; separate
calls (`submit`, `apply`) with the same options share one. Items are numbered by their places in the input; separate
calls in the order in which they came. Workers are numbered as they come; a slot is one worker's at a time.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "Event",
    "EventsLost",
    "PacketDone",
    "PacketReturned",
    "PacketSent",
    "TaskFailed",
    "TaskRetried",
    "TasksSubmitted",
    "WorkerEnded",
    "WorkerRetired",
    "WorkerStarted",
    "WorkerStarting",
]


class WorkerStarting(NamedTuple):
    """A worker was asked for."""

    time: float
    worker: int
    slot: int


class WorkerStarted(NamedTuple):
    """A worker runs, and its initializer has returned."""

    time: float
    worker: int
    slot: int


class WorkerRetired(NamedTuple):
    """A worker is let go: the pool closes, or shrinks, or the worker has run as many tasks as it may."""

    time: float
    worker: int
    slot: int


class WorkerEnded(NamedTuple):
    """A worker's process has ended. `pid` is 0 and `exitcode` None if there was none; `text` says why, if known."""

    time: float
    worker: int
    slot: int
    pid: int
    exitcode: int | None
    text: str


class TasksSubmitted(NamedTuple):
    """Items were accepted: `first` to `first + items - 1`. `name` is the function's; "" for separate calls."""

    time: float
    job: int
    first: int
    items: int
    name: str


class PacketSent(NamedTuple):
    """These items were sent to a worker, together."""

    time: float
    worker: int
    packet: int
    job: int
    first: int
    items: int


class PacketDone(NamedTuple):
    """These items have come to an end; the worker was `busy` with them for so many seconds. It was told at `time`."""

    time: float
    worker: int
    packet: int
    job: int
    first: int
    items: int
    busy: float


class PacketReturned(NamedTuple):
    """These items were not begun, and wait again."""

    time: float
    worker: int
    packet: int
    job: int
    first: int
    items: int


class TaskFailed(NamedTuple):
    """Tasks have failed: `why` is "raised", or "died", "overdue", "killed" if their worker has ended with them."""

    time: float
    job: int
    first: int
    items: int
    why: str


class TaskRetried(NamedTuple):
    """A task that has failed is to begin again; it is its `attempt`-th."""

    time: float
    job: int
    first: int
    attempt: int


class EventsLost(NamedTuple):
    """A callback was too slow: so many events that should be here were dropped."""

    time: float
    events: int


Event = (
    WorkerStarting
    | WorkerStarted
    | WorkerRetired
    | WorkerEnded
    | TasksSubmitted
    | PacketSent
    | PacketDone
    | PacketReturned
    | TaskFailed
    | TaskRetried
    | EventsLost
)
