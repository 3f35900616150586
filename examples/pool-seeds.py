"""Estimate pi by random points, in tasks with seeds of their own: however many workers there are, the estimate is one.

python examples/pool-seeds.py [spawn | fork | forkserver]
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from random import Random

from procflow import Pool, current_task, set_start_method

TASKS, POINTS = 40, 5_000


def count_hits(points: int) -> int:
    """Count the random points of the unit square that lie in the quarter of a circle."""
    random = Random(current_task().seed)
    return sum(random.random() ** 2 + random.random() ** 2 <= 1.0 for _ in range(points))


@contextmanager
def told(what: str) -> Iterator[None]:
    """Say when a worker comes and goes."""
    print(f"a worker begins, {what}\n", end="", flush=True)  # one write: others print at the same time
    yield
    print("a worker ends\n", end="", flush=True)


def main() -> None:
    for workers in (1, 3):
        told_of = partial(told, f"one of {workers}")
        with Pool(workers, seed=1, env={"OMP_NUM_THREADS": "1"}, worker_context=told_of) as pool:
            hits = sum(pool.imap_unordered(count_hits, [POINTS] * TASKS))
        print(f"pi is about {4 * hits / (TASKS * POINTS):.4f}, by {workers} workers", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        set_start_method(sys.argv[1])
    main()
