"""What the benchmarks share: run contestants in turn, round by round, and print medians and ratios.

Each round runs every contestant once, in another order each time, so that what else the machine does meets all alike.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import procflow

Measure = Callable[[], float]  # seconds of one unit of work, or whatever else the question's unit is
Result = dict[str, object]

# What is looked up for the versions that stand beside the figures.
DISTRIBUTIONS = [
    "loky", "joblib", "pebble", "mpire", "billiard", "ray", "distributed", "numpy", "pandas"
]  # fmt: skip

LOAD_BEFORE = os.getloadavg()


class GaveUpError(Exception):
    """The contestant has no figure; the message says why."""


def arguments(description: str) -> argparse.Namespace:
    """Parse what every benchmark takes."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="how often each contestant runs")
    parser.add_argument(
        "--budget", type=float, default=4.0, help="seconds after which a contestant runs no more rounds"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and one round: does it run? No figures")
    parser.add_argument("--peers", help="only these, with commas between them; else all that are installed")
    options = parser.parse_args()
    if options.quick:
        options.rounds = 1
    return options


def compare(
    question: str,
    contestants: dict[str, Measure],
    rounds: int,
    *,
    unit: str = "s",
    better: str = "lower",
    budget: float = math.inf,
) -> Result:
    """Run the contestants and print a table; the first is the one that the others are compared with.

    One that raises GaveUpError is named with its reason. One that has taken `budget` seconds runs no further round.
    """
    values: dict[str, list[float]] = {name: [] for name in contestants}
    spent = dict.fromkeys(contestants, 0.0)
    failed: dict[str, str] = {}

    def measure(name: str, how: Measure) -> float | None:
        begin = time.perf_counter()
        try:
            return how()
        except GaveUpError as error:
            failed[name] = str(error)
            return None
        finally:
            spent[name] += time.perf_counter() - begin

    for name, contestant in contestants.items():
        measure(name, getattr(contestant, "warm_up", contestant))
    spent = dict.fromkeys(contestants, 0.0)
    for _ in range(rounds):
        for name in random.sample(list(contestants), len(contestants)):
            if name in failed or spent[name] > budget:
                continue
            value = measure(name, contestants[name])
            if value is not None:
                values[name].append(value)
    kept = {name: taken for name, taken in values.items() if taken and name not in failed}
    _show(question, kept, failed, unit, better)
    return {"question": question, "unit": unit, "better": better, "values": kept, "failed": failed}


def times_worse(values: dict[str, list[float]], better: str) -> dict[str, float]:
    """By how much each median is worse than the first contestant's; below 1: it is better."""
    medians = {name: statistics.median(taken) for name, taken in values.items()}
    own = next(iter(medians.values()), math.nan)
    if better == "lower":
        return {name: median / own if own else math.nan for name, median in medians.items()}
    return {name: own / median if median else math.nan for name, median in medians.items()}


def in_unit(value: float, unit: str) -> str:
    """Write a figure as people read it."""
    if unit != "s":
        return f"{value:.1f} {unit}" if abs(value) >= 10 else f"{value:.2f} {unit}"
    if value < 1e-3:
        return f"{value * 1e6:.1f} us"
    return f"{value * 1e3:.2f} ms" if value < 1 else f"{value:.2f} s"


def report(results: list[Result], file: str | None) -> None:
    """Write the figures and what they were taken on."""
    if file is None:
        return
    machine = {
        "python": sys.version,
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "load_before": LOAD_BEFORE,  # what others did
        "load": os.getloadavg(),  # and with what the benchmark itself did
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *_without_json(sys.argv[1:])]),
        "versions": _versions(),
    }
    about = sys.modules["__main__"].__doc__ or ""
    with open(file, "w", encoding="utf-8") as out:
        json.dump({"about": about, "machine": machine, "results": results}, out, indent=1)
        out.write("\n")


def _show(question: str, values: dict[str, list[float]], failed: dict[str, str], unit: str, better: str) -> None:
    print(f"\n{question}")
    print(f"  {'':<44}{'median':>12}{'min':>12}{'max':>12}   times {'slower' if unit == 's' else 'worse'}")
    for name, ratio in times_worse(values, better).items():
        taken = values[name]
        figures = (in_unit(value, unit) for value in (statistics.median(taken), min(taken), max(taken)))
        print(f"  {name:<44}{''.join(f'{figure:>12}' for figure in figures)}{ratio:>9.2f}")
    for name, why in failed.items():
        print(f"  {name:<44}{why}", flush=True)


def _without_json(words: list[str]) -> list[str]:
    where = words.index("--json") if "--json" in words else len(words)
    return words[:where] + words[where + 2 :]


def _versions() -> dict[str, str]:
    found = {"procflow": procflow.__version__}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
