"""How long does one call take, there and back, when one waits for each result before the next call?

Against two bare pipes between two Python processes: 100 bytes there and back, which nothing can be faster than.
"""

from __future__ import annotations

import operator
import time

from _hosts import Question, run
from _peers import Peer


def call(peer: Peer, count: int) -> float:
    peer.call(operator.neg, 1)
    begin = time.perf_counter()
    for number in range(count):
        peer.call(operator.neg, number)
    return (time.perf_counter() - begin) / count


def apply(peer: Peer, count: int) -> float:
    peer.apply(operator.neg, 1)
    begin = time.perf_counter()
    for number in range(count):
        peer.apply(operator.neg, number)
    return (time.perf_counter() - begin) / count


QUESTIONS = [
    Question("submit(f, x).result(), 2 workers", call, 1000, needs="call"),
    Question("apply(f, [x]), 2 workers", apply, 1000, needs="apply"),
]

if __name__ == "__main__":
    run(QUESTIONS)
