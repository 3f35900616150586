"""How much does the parent read ahead, and how much does it grow, when the results are taken slowly?

imap_unordered over a generator of 1,000,000 items, each a string of some 100 bytes, of which the consumer takes one per
millisecond, for three seconds. The figures are those at that moment. Each measurement has a process of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from _hosts import Question, run
from _peers import Peer

ITEMS = 1_000_000


def resident() -> float:
    """Return this process's resident memory in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def slowly(peer: Peer, count: int) -> tuple[float, float]:
    """Return the items that were read and not taken, and the MB by which this process grew."""
    read = 0

    def items() -> Iterator[str]:
        nonlocal read
        for number in range(ITEMS):
            read = number + 1
            yield f"{number:0100d}"

    for _ in peer.stream(len, ["warm"] * 100, None):  # so that the pool is there, and what it imports
        pass
    before, taken, end = resident(), 0, time.monotonic() + count / 1000
    results = iter(peer.stream(len, items(), None))
    while time.monotonic() < end:
        next(results)
        taken += 1
        time.sleep(0.001)
    return float(read - taken), resident() - before


def read_ahead(peer: Peer, count: int) -> float:
    return slowly(peer, count)[0]


def growth(peer: Peer, count: int) -> float:
    return slowly(peer, count)[1]


QUESTIONS = [
    Question(title, measure, 3000, needs="stream", fresh=True, unit=unit, limit=20.0)
    for title, measure, unit in (
        ("items read and not taken, after 3 s", read_ahead, "items"),
        ("growth of the parent's resident memory, after 3 s", growth, "MB"),
    )
]

if __name__ == "__main__":
    run(QUESTIONS)
