"""What do 8 and 64 workers cost, where there is no work to speak of? Does a submit cost more with more of them?"""

from __future__ import annotations

import operator
import time

from _hosts import Question, run
from _peers import Peer


def per_item(peer: Peer, count: int) -> float:
    begin = time.perf_counter()
    results = peer.map(operator.neg, range(count), 1)
    seconds = time.perf_counter() - begin
    assert len(results) == count
    return seconds / count


def per_call(peer: Peer, count: int) -> float:
    begin = time.perf_counter()
    handles = [peer.submit(operator.neg, number) for number in range(count)]
    for handle in handles:
        peer.result(handle)
    return (time.perf_counter() - begin) / count


QUESTIONS = [
    question
    for workers in (8, 64)
    for question in (
        Question(f"map of 5,000 items, chunksize=1, {workers} workers, per item", per_item, 5000, workers=workers),
        Question(
            f"5,000 submits, then all results, {workers} workers, per call",
            per_call,
            5000,
            needs="submit",
            workers=workers,
        ),
    )
]

if __name__ == "__main__":
    run(QUESTIONS)
