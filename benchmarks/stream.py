"""What does an item of imap_unordered cost when the input is a generator?

With no chunksize given, and each peer also with the chunksize that does best for it, tried out before. Where a peer
has no imap_unordered, its nearest: Executor.map, joblib's return_as="generator_unordered".
"""

from __future__ import annotations

import operator
import time

from _hosts import Question, run
from _peers import Peer


def per_item(peer: Peer, count: int, chunksize: int | None) -> float:
    begin = time.perf_counter()
    arrived = sum(1 for _ in peer.stream(operator.neg, (number for number in range(count)), chunksize))
    seconds = time.perf_counter() - begin
    assert arrived == count
    return seconds / count


QUESTIONS = [
    Question(
        "imap_unordered over a generator of 50,000 items, no chunksize given, per item",
        per_item,
        50_000,
        needs="stream",
        settings={"chunksize": None},
        tries=(100, 500, 2000, 8000),
    )
]

if __name__ == "__main__":
    run(QUESTIONS)
