"""How busy are 8 workers kept while the main thread computes in Python, and holds the interpreter's lock?

The tasks sleep for 1 ms. The figure is the ideal time, count x 1 ms / 8, over the time taken, in percent.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from _hosts import Question, run
from _peers import Peer

DURATION = 0.001


def compute_until(finished: Callable[[], bool]) -> None:
    while not finished():
        sum(number * number for number in range(20_000))  # about a millisecond


def submitted(peer: Peer, count: int) -> float:
    begin = time.perf_counter()
    handles = [peer.submit(time.sleep, DURATION) for _ in range(count)]

    def finished() -> bool:
        while handles and peer.done(handles[-1]):
            handles.pop()
        return not handles

    compute_until(finished)
    return 100 * (count * DURATION / peer.workers) / (time.perf_counter() - begin)


def mapped(peer: Peer, count: int) -> float:
    begin = time.perf_counter()
    compute_until(peer.start_map(time.sleep, [DURATION] * count))
    return 100 * (count * DURATION / peer.workers) / (time.perf_counter() - begin)


QUESTIONS = [
    Question(
        f"4,000 tasks of 1 ms by {how}, 8 workers, main thread computing: efficiency",
        measure,
        4000,
        needs=needs,
        workers=8,
        unit="%",
        better="higher",
    )
    for how, measure, needs in (("map_async", mapped, "start_map"), ("submit", submitted, "submit"))
]

if __name__ == "__main__":
    run(QUESTIONS)
