"""How many items travel together: the arithmetic of chunks and windows, and nothing else.

A *packet* is what one write gives to one worker: one or more *chunks* of one job. A chunk is the unit of failure and of
`maxtasksperchild`: `chunksize` items if the caller gave it, else a single item. How many chunks share a packet is
decided here from the time per item that the workers measured, and never changes a result or an error.

docs/design/scheduler.md holds the reasons and the figures.
"""

from __future__ import annotations

__all__ = [
    "ADAPTIVE_TARGET",
    "AHEAD",
    "GIVEN_TARGET",
    "STRETCH",
    "blend",
    "fair_share",
    "fitting",
    "read_ahead",
    "stretched",
]

ADAPTIVE_TARGET = 2e-3  # seconds of work in a packet when no chunksize was given
GIVEN_TARGET = 500e-6  # the same when the caller gave one: it also means "do not keep my items waiting for each other"
PER_WORKER_TARGET = 90e-6  # the parent needs about this long to serve each of the other workers once
GROWTH = 8  # a packet is at most this many times the last one: cheap items may be followed by dear ones
STRETCH = 16.0  # at most, and only while workers run out of packets
MOST = 65_536  # chunks in one packet
AHEAD = 65_536  # items of a lazy input in the pool's hands: some MB of small objects, and of results as many
WEIGHT = 0.5  # of the newest sample in the running mean


def blend(mean: float, sample: float) -> float:
    """Bring the running mean of seconds per item up to date; a `mean` below zero says that there is none yet."""
    return sample if mean < 0.0 else mean + (sample - mean) * WEIGHT


def stretched(stretch: float, *, dry: bool, least: float = 1.0) -> float:
    """Return by how much packets are to be longer than their target, after one more was answered.

    Args:
        stretch: Until now; at least `least`.
        dry: The worker had run out of packets when its answer was read, though work was waiting: the pool is slower
            than it, for instance as the program computes, and a thread that serves the pool gets the interpreter
            every 5 ms only.
        least: 1, or more where the way to a worker and back takes long.
    """
    return max(least, min(stretch * 1.5, STRETCH) if dry else stretch * 0.97)


def fitting(seconds: float, workers: int, last: int, *, adaptive: bool, stretch: float = 1.0) -> int:
    """Return how many chunks make a packet of the right duration, at least 1.

    Args:
        seconds: Measured seconds per chunk; below zero while unknown.
        workers: Workers of the pool.
        last: Chunks in the packet of this job before this one.
        adaptive: True if the caller left the chunk size to us.
        stretch: See `stretched`.
    """
    if seconds < 0.0:
        return 1
    target = stretch * (max(ADAPTIVE_TARGET, workers * PER_WORKER_TARGET) if adaptive else GIVEN_TARGET)
    fit = MOST if seconds * MOST <= target else int(target / seconds)
    return max(1, min(fit, GROWTH * last, MOST))


def fair_share(queued: int, workers: int, *, more_to_come: bool) -> int:
    """Return how many of `queued` chunks one packet may take, at least 1.

    Of a finite rest half a worker's share, so that the last packets are small and the workers end together; of an input
    that goes on, a whole one.
    """
    return max(1, queued // (workers if more_to_come else 2 * workers))


def read_ahead(buffersize: int | None, workers: int, window: int, packet: int, grain: int) -> int:
    """Return how many items of a lazy input may be in the pool's hands: read, but not yet given to the consumer.

    Args:
        buffersize: The caller's bound in items, kept exactly; None leaves it to us.
        workers: Workers of the pool.
        window: Packets in flight per worker.
        packet: Chunks that a packet should hold now; so slow items are read a few at a time, quick ones in thousands.
            Never more than `AHEAD` items, unless the workers would get less than one chunk each.
        grain: Items in a chunk.
    """
    if buffersize is not None:
        return buffersize
    chunks = workers * window * grain
    return max(chunks, min(2 * chunks * packet, AHEAD))
