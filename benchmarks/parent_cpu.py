"""How much of the parent's CPU time does one task take?

User and system time of all threads of the process that holds the pool, over the items of a map with chunksize=1.
What Ray and Dask do in processes of their own is not in it.
"""

from __future__ import annotations

import operator
import time

from _hosts import Question, run
from _peers import Peer


def per_item(peer: Peer, count: int) -> float:
    begin = time.process_time()
    peer.map(operator.neg, range(count), 1)
    return (time.process_time() - begin) / count


QUESTIONS = [Question("map of 10,000 items, chunksize=1, 2 workers: CPU time of the parent per item", per_item, 10_000)]

if __name__ == "__main__":
    run(QUESTIONS)
