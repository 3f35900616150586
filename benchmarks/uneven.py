"""How near to the ideal is a map whose items take from 0.1 to 300 ms, and no chunksize is given?

The items sleep, so cores are no limit. The figure is the time taken over the ideal one: all durations divided by the
workers, or the longest item if that is more. 1 is perfect; a schedule that knows no duration can be off by the longest
item. multiprocessing.Pool and ProcessPoolExecutor also run with the chunksize that does best for them, tried out
before.
"""

from __future__ import annotations

import random
import time

from _hosts import Question, run
from _peers import Peer

LEAST, MOST = 0.0001, 0.3


def heavy_tailed(total: float) -> list[float]:
    """Most are short, a few take most of the time."""
    source = random.Random(7)
    return _until(total, lambda: min(MOST, LEAST * source.paretovariate(0.6)))


def increasing(total: float) -> list[float]:
    source = random.Random(7)
    return sorted(_until(total, lambda: source.uniform(LEAST, 0.05)))


def cheap_then_dear(total: float) -> list[float]:
    """What one has seen says nothing of what comes."""
    dear = 0.05
    return [LEAST] * int(total / 4 / LEAST / 4) + [dear] * int(total * 3 / 4 / dear)


def _until(total: float, draw) -> list[float]:  # type: ignore[no-untyped-def]
    durations: list[float] = []
    while sum(durations) < total:
        durations.append(draw())
    return durations


SHAPES = {"heavy-tailed": heavy_tailed, "increasing": increasing, "cheap, then dear": cheap_then_dear}


def over_ideal(peer: Peer, count: int, shape: str, chunksize: int | None) -> float:
    durations = SHAPES[shape](count / 1000)
    ideal = max(sum(durations) / peer.workers, *durations)
    begin = time.perf_counter()
    peer.map(time.sleep, durations, chunksize)
    return (time.perf_counter() - begin) / ideal


QUESTIONS = [
    Question(
        f"durations {shape}, {workers} workers, time over the ideal",
        over_ideal,
        count=1000 * workers,  # milliseconds in all
        workers=workers,
        settings={"shape": shape, "chunksize": None},
        tries=(1, 4, 16),
        tried=("multiprocessing.Pool", "ProcessPoolExecutor"),
        unit="x",
    )
    for workers in (2, 8)
    for shape in SHAPES
]

if __name__ == "__main__":
    run(QUESTIONS)
