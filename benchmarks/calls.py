"""How long does one call take, there and back, and how long a map of trivial items with chunksize=1?

    python benchmarks/calls.py [--rounds N] [--json FILE]

procflow.Pool against multiprocessing.Pool and ProcessPoolExecutor, each with two workers and with its fastest start
method for this (their workers are warm, so the method only decides how the workers were born).
"""

from __future__ import annotations

import multiprocessing
import operator
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

from _side_by_side import arguments, compare, report

from procflow import Pool

CALLS = 300
ITEMS = 5000


def seconds_each(count: int, work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) / count


def main() -> None:
    options = arguments(__doc__ or "")
    with (
        Pool(2) as ours,
        multiprocessing.get_context("fork").Pool(2) as theirs,
        ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as executor,
    ):

        def one_by_one(call: Callable[[int], object]) -> Callable[[], float]:
            return lambda: seconds_each(CALLS, lambda: [call(n) for n in range(CALLS)])

        def mapped(work: Callable[[], object]) -> Callable[[], float]:
            return lambda: seconds_each(ITEMS, work)

        items = range(ITEMS)
        results = [
            compare(
                "One call and its result, one after the other",
                {
                    "procflow submit().result()": one_by_one(lambda n: ours.submit(operator.neg, n).result()),
                    "procflow apply()": one_by_one(lambda n: ours.apply(operator.neg, (n,))),
                    "multiprocessing.Pool apply()": one_by_one(lambda n: theirs.apply(operator.neg, (n,))),
                    "ProcessPoolExecutor submit().result()": one_by_one(
                        lambda n: executor.submit(operator.neg, n).result()
                    ),
                },
                options.rounds,
            ),
            compare(
                f"map of {ITEMS} trivial items, chunksize=1, per item",
                {
                    "procflow": mapped(lambda: ours.map(operator.neg, items, 1)),
                    "multiprocessing.Pool": mapped(lambda: theirs.map(operator.neg, items, 1)),
                    "ProcessPoolExecutor": mapped(lambda: list(executor.map(operator.neg, items, chunksize=1))),
                },
                options.rounds,
            ),
            compare(
                f"map of {ITEMS * 20} trivial items, no chunksize given, per item",
                {
                    "procflow": lambda: seconds_each(ITEMS * 20, lambda: ours.map(operator.neg, range(ITEMS * 20))),
                    "multiprocessing.Pool": lambda: seconds_each(
                        ITEMS * 20, lambda: theirs.map(operator.neg, range(ITEMS * 20))
                    ),
                },
                options.rounds,
            ),
        ]
    report(results, options.json)


if __name__ == "__main__":
    main()
