"""What the benchmarks share: run contestants in turn, round by round, and print medians and ratios.

Each round runs every contestant once, in another order each time, so that what else the machine does meets all alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
from collections.abc import Callable

Measure = Callable[[], float]  # seconds of one unit of work


def arguments(description: str) -> argparse.Namespace:
    """Parse what every benchmark takes."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="how often each contestant runs")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    return parser.parse_args()


def compare(question: str, contestants: dict[str, Measure], rounds: int) -> dict[str, object]:
    """Run the contestants and print a table; the first is the one that the others are compared with."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for measure in contestants.values():  # warm up
        measure()
    for _ in range(rounds):
        for name in random.sample(list(contestants), len(contestants)):
            times[name].append(contestants[name]())
    own = statistics.median(next(iter(times.values())))
    print(f"\n{question}")
    print(f"  {'':<36}{'median':>12}{'min':>12}{'max':>12}   times slower")
    for name, taken in times.items():
        median = statistics.median(taken)
        low, high = min(taken), max(taken)
        print(f"  {name:<36}{median * 1e6:>9.1f} us{low * 1e6:>9.1f} us{high * 1e6:>9.1f} us{median / own:>9.2f}")
    return {"question": question, "seconds": times}


def report(results: list[dict[str, object]], file: str | None) -> None:
    """Write the figures and what they were taken on."""
    if file is None:
        return
    machine = {
        "python": sys.version,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg(),
        "command": " ".join(sys.argv),
    }
    with open(file, "w", encoding="utf-8") as out:
        json.dump({"machine": machine, "results": results}, out, indent=2)
