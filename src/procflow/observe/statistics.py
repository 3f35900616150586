"""What a pool has done so far, in numbers: `Pool.statistics()`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from time import monotonic
from types import MappingProxyType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from procflow.dispatch.dispatcher import Dispatcher
    from procflow.scheduling.scheduler import Worker

__all__ = ["PoolStatistics", "WorkerStatistics", "take"]


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """One worker. What is not known, as of a place on a cluster, is None.

    Attributes:
        slot: Its place, 0 to the number of workers - 1.
        pid: Its process.
        state: "starting", "ready", or "retiring": it is let go, and ends what it holds.
        tasks: How many tasks have come to an end in it.
        held: How many it was sent and has not told the end of.
        busy: Seconds in which it ran tasks, as it told.
        waiting: Seconds since it was ready in which it did not.
        start_up: Seconds from its launch until it was ready.
        deaths: How many workers have died in this slot, not counting those that were let go.
        rss: Bytes of memory that its process holds now, those included that it shares with others.
        bytes_in: Bytes that were sent to it: packets, and what is in shared memory.
        bytes_out: Bytes that came from it.
    """

    slot: int
    pid: int | None
    state: str
    tasks: int
    held: int
    busy: float
    waiting: float | None
    start_up: float | None
    deaths: int
    rss: int | None
    bytes_in: int | None
    bytes_out: int | None


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """A pool at one moment. A task is one item of a call, or a separate call.

    Attributes:
        queued: Tasks that wait, also for another attempt.
        running: Tasks that workers hold; those which they have not begun yet included.
        done: Tasks that came to an end in a worker, those that failed there included.
        failed: Tasks that failed: they raised, or were lost with their worker.
        retried: How often a task began again.
        deaths: Workers that ended without being let go.
        workers: Each worker, by its slot.
        packet_sizes: Tasks in a packet -> how many packets of that size came to their end.
    """

    queued: int
    running: int
    done: int
    failed: int
    retried: int
    deaths: int
    workers: tuple[WorkerStatistics, ...]
    packet_sizes: Mapping[int, int]


def take(core: Dispatcher) -> PoolStatistics:
    """Look at a pool."""
    now = monotonic()
    with core.guard:
        scheduler = core.scheduler
        workers = sorted(scheduler.workers.values(), key=lambda worker: (worker.slot, worker.id))
        held = {worker.id: sum(p.stop - p.done for p in worker.inflight.values()) for worker in workers}
        running = sum(held.values())
        told = tuple(_worker(core, worker, held[worker.id], now) for worker in workers)
        return PoolStatistics(
            queued=scheduler.unresolved - running,
            running=running,
            done=scheduler.done,
            failed=core.failed,
            retried=scheduler.retried,
            deaths=sum(scheduler.deaths.values()),
            workers=told,
            packet_sizes=MappingProxyType(dict(sorted(scheduler.sizes.items()))),
        )


def _worker(core: Dispatcher, worker: Worker, held: int, now: float) -> WorkerStatistics:
    facts = core.engine.facts(worker.id)
    pid, launched, ready_at, bytes_in, bytes_out = facts or (None, 0.0, 0.0, None, None)
    return WorkerStatistics(
        slot=worker.slot,
        pid=pid,
        state=worker.state,
        tasks=worker.tasks,
        held=held,
        busy=worker.seconds,
        waiting=max(0.0, now - ready_at - worker.seconds) if ready_at else None,
        start_up=ready_at - launched if ready_at else None,
        deaths=core.scheduler.deaths.get(worker.slot, 0),
        rss=_rss(pid),
        bytes_in=bytes_in,
        bytes_out=bytes_out,
    )


def _rss(pid: int | None) -> int | None:
    """Return the resident memory of a process, in bytes; None if it is not known."""
    if pid is None:
        return None
    try:
        with open(f"/proc/{pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None
