"""What does a call cost when 20,000 are submitted first, and their results taken afterwards?"""

from __future__ import annotations

import operator
import time

from _hosts import Question, run
from _peers import Peer


def per_call(peer: Peer, count: int) -> float:
    begin = time.perf_counter()
    handles = [peer.submit(operator.neg, number) for number in range(count)]
    for handle in handles:
        peer.result(handle)
    return (time.perf_counter() - begin) / count


QUESTIONS = [Question("20,000 submits, then all results, 2 workers, per call", per_call, 20_000, needs="submit")]

if __name__ == "__main__":
    run(QUESTIONS)
