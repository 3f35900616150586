"""How fast do big data move to a worker, back, and both ways?

    python benchmarks/arrays.py [--rounds N] [--json FILE]

procflow.Pool against multiprocessing.Pool, ProcessPoolExecutor and, where it is installed, joblib (loky), each with two
warm workers: 16 MiB as a numpy array, as bytes and as a bytearray; beside them a copy of 16 MiB in warm memory, which
is the least that one way can take. Then 1 GiB in and out, once for each way in a fresh pool, with the peak of memory.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from _side_by_side import arguments, compare, report

from procflow import Pool

NBYTES = 16 * 2**20
GIB = 2**30
TIMES = 4  # calls in one measurement
kept: dict[tuple[str, int], Any] = {}


def make(kind: str, nbytes: int) -> Any:
    """Return data of a kind, made once in each process: making them is not what is measured."""
    found = kept.get((kind, nbytes))
    if found is None:
        data = np.ones(nbytes, np.uint8)
        found = data if kind == "numpy" else bytes(data) if kind == "bytes" else bytearray(data)
        kept[kind, nbytes] = found
    return found


def echo(value: Any) -> Any:
    return value


def take(value: Any) -> int:
    return len(value)


def seconds_each(work: Callable[[], object], times: int = TIMES) -> float:
    begin = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - begin) / times


def joblib_call(workers: int) -> Callable[..., Any] | None:
    try:
        import joblib
    except ImportError:
        return None
    parallel = joblib.Parallel(workers)
    parallel.__enter__()
    return lambda function, *args: parallel([joblib.delayed(function)(*args)])[0]


def family_memory() -> int:
    """Bytes of this process and its descendants: what is private to each, and the pool's files in memory, each once."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    total, todo = 0, [os.getpid()]
    while todo:
        pid = todo.pop()
        todo += children.get(pid, [])
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss_Anon:"):
                    total += int(line.split()[1]) * 1024
        except OSError:
            pass
    files: dict[int, int] = {}
    for fd in Path("/proc/self/fd").iterdir():
        try:
            if "procflow" in os.readlink(fd):
                files[fd.stat().st_ino] = fd.stat().st_blocks * 512
        except OSError:
            pass
    return total + sum(files.values())


class Peak:
    """The most memory that this process and its descendants had inside the with-block."""

    def __enter__(self) -> Peak:
        self.bytes = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._end.wait(0.02):
            self.bytes = max(self.bytes, family_memory())

    def __exit__(self, *_: object) -> None:
        self.bytes = max(self.bytes, family_memory())
        self._end.set()
        self._thread.join()


def one_gib() -> list[dict[str, object]]:
    """Send 1 GiB in, then 1 GiB out, each in a pool of its own; print rates and peaks, and return them."""
    print("\n1 GiB as a numpy array, best of 3")
    found: list[dict[str, object]] = []
    for way in ("in", "out"):
        base = family_memory()
        with Pool(1) as pool:
            pool.apply(make, ("numpy", GIB if way == "out" else 1))
            data = make("numpy", GIB) if way == "in" else None

            def work(pool: Pool = pool, data: Any = data) -> None:
                pool.apply(take, (data,)) if data is not None else pool.apply(make, ("numpy", GIB))

            with Peak() as peak:
                seconds = [seconds_each(work, 1) for _ in range(3)]
            del data, work
        kept.clear()
        figures: dict[str, tuple[str, list[float]]] = {
            f"1 GiB, numpy, {way}": ("s", seconds),
            f"Peak memory of 1 GiB {way}, times the payload": ("", [(peak.bytes - base) / GIB]),
        }
        found += [
            {"question": question, "unit": unit, "better": "lower", "values": {"procflow": taken}, "failed": {}}
            for question, (unit, taken) in figures.items()
        ]
        print(
            f"  {way:<36}first {GIB / seconds[0] / 1e9:6.1f} GB/s   best {GIB / min(seconds) / 1e9:6.1f} GB/s   "
            f"peak {(peak.bytes - base) / GIB:.2f} x the payload"
        )
    return found


def main() -> None:
    options = arguments(__doc__ or "")
    results: list[dict[str, object]] = []
    fork = multiprocessing.get_context("fork")
    with (
        Pool(2) as ours,
        fork.Pool(2) as theirs,
        ProcessPoolExecutor(2, mp_context=fork) as executor,
    ):
        calls: dict[str, Callable[..., Any]] = {
            "procflow": lambda function, *args: ours.apply(function, args),
            "multiprocessing.Pool": lambda function, *args: theirs.apply(function, args),
            "ProcessPoolExecutor": lambda function, *args: executor.submit(function, *args).result(),
        }
        loky = joblib_call(2)
        if loky is not None:
            calls["joblib"] = loky
        source, target = np.ones(NBYTES, np.uint8), np.ones(NBYTES, np.uint8)

        def copy() -> None:
            target[:] = source

        for kind in ("numpy", "bytes", "bytearray"):
            data = make(kind, NBYTES)
            ways: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
                "in": (take, (data,)),
                "out": (make, (kind, NBYTES)),
                "in and out": (echo, (data,)),
            }
            for way, (function, args) in ways.items():

                def measure(call: Callable[..., Any], function: Any = function, args: Any = args) -> float:
                    return seconds_each(lambda: call(function, *args))

                contestants = {
                    name: (lambda call=call, measure=measure: measure(call))  # type: ignore[misc]
                    for name, call in calls.items()
                }
                contestants["a copy in warm memory"] = lambda: seconds_each(copy)
                results.append(compare(f"16 MiB, {kind}, {way}", contestants, options.rounds))
    results += one_gib()
    report(results, options.json)


if __name__ == "__main__":
    main()
