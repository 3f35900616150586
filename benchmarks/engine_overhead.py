"""What does a pool cost over the executor or cluster that it runs on? Chunks of 10 ms, two workers.

    python benchmarks/engine_overhead.py [--rounds N] [--json FILE]

A chunk is ten tasks that sleep for a millisecond; raw, a function that makes these ten calls is submitted. The work is
the same, and what is measured is the way there and back, in processes that have two cores for all of them.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager

from _side_by_side import arguments, compare, report

from procflow import Pool
from procflow.engines import FuturesEngine

CHUNKS, ITEMS = 400, 10
Measure = Callable[[], float]


def task(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def chunk(seconds: list[float]) -> list[float]:
    return [task(each) for each in seconds]


def timed(act: Callable[[], int], expected: int) -> float:
    began = time.perf_counter()
    assert act() == expected
    return time.perf_counter() - began


def pooled(pool: Pool, chunks: int) -> Measure:
    items = [1e-3] * (chunks * ITEMS)
    return lambda: timed(lambda: len(pool.map(task, items, ITEMS)), len(items))


@contextmanager
def on_executor(chunks: int) -> Iterator[dict[str, Measure]]:
    work = [[1e-3] * ITEMS] * chunks
    with (
        ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor,
        Pool(engine=FuturesEngine(executor)) as pool,
    ):
        yield {
            "procflow": pooled(pool, chunks),
            "ProcessPoolExecutor": lambda: timed(lambda: len(list(executor.map(chunk, work))), chunks),
        }


@contextmanager
def on_dask(chunks: int) -> Iterator[dict[str, Measure]]:
    from distributed import Client, LocalCluster

    from procflow.engines import DaskEngine

    work = [[1e-3] * ITEMS] * chunks
    with (
        LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster.scheduler_address) as client,
        Pool(engine=DaskEngine(cluster.scheduler_address)) as pool,
    ):
        yield {
            "procflow": pooled(pool, chunks),
            "Dask": lambda: timed(lambda: len(client.gather(client.map(chunk, work, pure=False))), chunks),
        }


@contextmanager
def on_ray(chunks: int) -> Iterator[dict[str, Measure]]:
    import ray

    from procflow.engines import RayEngine

    work = [[1e-3] * ITEMS] * chunks
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, object_store_memory=200_000_000, include_dashboard=False, log_to_driver=False)
    try:
        remote = ray.remote(chunk)
        with Pool(engine=RayEngine()) as pool:
            yield {
                "procflow": pooled(pool, chunks),
                "Ray": lambda: timed(lambda: len(ray.get([remote.remote(each) for each in work])), chunks),
            }
    finally:
        ray.shutdown()


def main() -> None:
    options = arguments(__doc__ or "")
    chunks = 10 if options.quick else CHUNKS
    results = []
    for name, opened in (("an executor", on_executor), ("a Dask cluster", on_dask), ("a Ray cluster", on_ray)):
        with ExitStack() as stack:
            try:
                contestants = stack.enter_context(opened(chunks))
            except ModuleNotFoundError as error:
                print(f"{name}: {error}")
                continue
            for measure in contestants.values():  # so that their workers are there
                measure()
            question = f"{chunks} chunks of 10 ms on {name}"
            results.append(compare(question, contestants, options.rounds))
    report(results, options.json)


if __name__ == "__main__":
    main()
