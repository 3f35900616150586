"""How long does a call take when six threads use one pool at once?

Four threads call and wait for the result, two run maps of 200 items. The figures are the median and the 99th percentile
of the calls' latencies.
"""

from __future__ import annotations

import operator
import statistics
import threading
import time

from _hosts import Question, run
from _peers import Peer


def latencies(peer: Peer, count: int) -> list[float]:
    _ = peer.pool  # else each thread might open one: since Python 3.12 cached_property takes no lock
    taken: list[float] = []
    calling = threading.Event()
    calling.set()
    failures: list[BaseException] = []

    def calls() -> None:
        try:
            for number in range(count // 4):
                begin = time.perf_counter()
                assert peer.call(operator.neg, number) == -number
                taken.append(time.perf_counter() - begin)
        except BaseException as error:  # noqa: BLE001  raised in the thread that asked
            failures.append(error)

    def maps() -> None:
        try:
            while calling.is_set():
                assert peer.map(operator.neg, range(200), None)[-1] == -199
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    callers = [threading.Thread(target=calls, daemon=True) for _ in range(4)]
    mappers = [threading.Thread(target=maps, daemon=True) for _ in range(2)]
    for thread in callers + mappers:
        thread.start()
    for thread in callers:
        thread.join()
    calling.clear()
    for thread in mappers:
        thread.join()
    if failures:
        raise failures[0]
    return taken


def median(peer: Peer, count: int) -> float:
    return statistics.median(latencies(peer, count))


def percentile_99(peer: Peer, count: int) -> float:
    return statistics.quantiles(latencies(peer, count), n=100)[98]


QUESTIONS = [
    Question(
        f"{name} latency of 4,000 calls in 4 threads, beside 2 that map", measure, 4000, needs="submit", limit=30.0
    )
    for name, measure in (("median", median), ("99th percentile of the", percentile_99))
]

if __name__ == "__main__":
    run(QUESTIONS)
