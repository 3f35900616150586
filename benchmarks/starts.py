"""How long until a pool gives its first result, until a worker is replaced, until a Process has come and gone?

    python benchmarks/starts.py [--rounds N] [--json FILE] [--only TEXT]

Cold: a pool in a fresh interpreter, with the import of its library, and the start of the fork server. Warm: the second
pool of the same interpreter. Each sample comes from an interpreter of its own, which compiled modules are cached for.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from _side_by_side import report

TASKS = 300
OURS, THEIRS, EXECUTOR = "procflow", "multiprocessing", "executor"
SHOWN = {OURS: OURS, THEIRS: "multiprocessing.Pool", EXECUTOR: "ProcessPoolExecutor"}
TITLES = {
    "maxtasksperchild": f"{TASKS} tasks, each in a worker of its own",
    "process": "a Process comes and goes, warm",
}
METHODS = ("fork", "spawn", "forkserver")


def make_pool(library: str, method: str, workers: int, **options: int) -> Any:
    if library == OURS:
        import procflow

        return procflow.get_context(method).Pool(workers, **options)
    import multiprocessing

    return multiprocessing.get_context(method).Pool(workers, **options)


def first_result(library: str, method: str, workers: int) -> float:
    """Construct a pool, get one result; the end of the pool is not part of it."""
    begin = time.perf_counter()
    if library == EXECUTOR:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        executor = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context(method))
        executor.submit(abs, -1).result()
        seconds = time.perf_counter() - begin
        executor.shutdown()
        return seconds
    pool = make_pool(library, method, workers)
    pool.apply(abs, (-1,))
    seconds = time.perf_counter() - begin
    pool.terminate()
    pool.join()
    return seconds


def replaced(library: str, method: str) -> float:
    """300 tasks, each in a worker of its own, two workers at a time."""
    pool = make_pool(library, method, 2, maxtasksperchild=1)
    pool.apply(abs, (-1,))
    begin = time.perf_counter()
    pool.map(abs, range(TASKS), 1)
    seconds = time.perf_counter() - begin
    pool.terminate()
    pool.join()
    return seconds


def process(library: str, method: str) -> float:
    """Start and join a process that does nothing, warm; the median of some."""
    if library == OURS:
        import procflow

        make: Callable[..., Any] = procflow.get_context(method).Process
    else:
        import multiprocessing

        make = multiprocessing.get_context(method).Process  # type: ignore[attr-defined]
    samples = []
    for _ in range(12):
        begin = time.perf_counter()
        made = make(target=abs, args=(-1,))
        made.start()
        made.join()
        samples.append(time.perf_counter() - begin)
    return statistics.median(samples[2:])


def sample(question: str, library: str, method: str) -> None:
    """In the fresh interpreter: print the seconds, of the cold one and of the warm one where it is both."""
    if question == "maxtasksperchild":
        print(replaced(library, method))
    elif question == "process":
        print(process(library, method))
    else:
        print(first_result(library, method, int(question)), first_result(library, method, int(question)))


def run(question: str, library: str, method: str) -> list[float]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, __file__, "--sample", question, library, method]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return [float(word) for word in output.split()]


def compare(question: str, libraries: tuple[str, ...], rounds: int) -> list[dict[str, object]]:
    """Run a question for all libraries and methods in turn; print the medians, and multiprocessing's as ratios."""
    results: list[dict[str, object]] = []
    for method in METHODS:
        times: dict[str, list[list[float]]] = {library: [] for library in libraries}
        for library in libraries:
            run(question, library, method)  # so that everything is compiled, and in the page cache
        for _ in range(rounds):
            for library in random.sample(libraries, len(libraries)):
                times[library].append(run(question, library, method))
        for place, kind in enumerate(("cold", "warm") if question.isdigit() else ("",)):
            label = f"{question} workers to first result, {kind}" if kind else TITLES[question]
            taken = {library: [each[place] for each in found] for library, found in times.items()}
            own = taken[OURS]
            print(f"{label:<40}{method:<12}", end="")
            for library, seconds in taken.items():
                median, low = statistics.median(seconds), min(seconds)
                ratio = (
                    f"({median / statistics.median(own):.1f}x, min {low / min(own):.1f}x)" if library != OURS else ""
                )
                print(f"  {library} {median * 1e3:.1f} ms, min {low * 1e3:.1f} {ratio}", end="")
            print(flush=True)
            shown = {**SHOWN, THEIRS: "multiprocessing.Process"} if question == "process" else SHOWN
            values = {shown[library]: seconds for library, seconds in taken.items()}
            results.append(
                {"question": f"{label}, {method}", "unit": "s", "better": "lower", "values": values, "failed": {}}
            )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="how often each contestant runs")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    parser.add_argument("--only", default="", help="of the questions 2, 64, maxtasksperchild, process only this one")
    parser.add_argument("--sample", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.sample:
        sample(*options.sample)
        return
    results: list[dict[str, object]] = []
    for question in ("2", "64", "maxtasksperchild", "process"):
        if options.only in ("", question):
            libraries = (OURS, THEIRS, EXECUTOR) if question.isdigit() else (OURS, THEIRS)
            results += compare(question, libraries, options.rounds)
    report(results, options.json)


if __name__ == "__main__":
    main()
