"""What does an item of a map cost when the function does next to nothing?

With chunksize=1, where every item travels alone, and with no chunksize given. There each peer also runs with the
chunksize that does best for it, tried out before; procflow chooses by itself.
"""

from __future__ import annotations

import operator
import time

from _hosts import Question, run
from _peers import Peer


def per_item(peer: Peer, count: int, chunksize: int | None) -> float:
    items = range(count)
    begin = time.perf_counter()
    results = peer.map(operator.neg, items, chunksize)
    seconds = time.perf_counter() - begin
    assert len(results) == count
    return seconds / count


QUESTIONS = [
    Question("map of 20,000 items, chunksize=1, per item", per_item, 20_000, settings={"chunksize": 1}),
    Question(
        "map of 100,000 items, no chunksize given, per item",
        per_item,
        100_000,
        settings={"chunksize": None},
        tries=(500, 2000, 8000, 25_000),
        without={"dask": "every item is a task of its own, so it would take minutes"},
    ),
]

if __name__ == "__main__":
    run(QUESTIONS)
