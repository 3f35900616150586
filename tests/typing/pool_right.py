"""What mypy and pyright must infer of Pool, Process and Future. Checked by both; nothing is run."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import IO, assert_type

from procflow import (
    Future,
    Pool,
    PoolExecutor,
    Process,
    TaskInfo,
    WorkerDied,
    current_process,
    current_task,
    get_context,
)


def length(text: str) -> int:
    return len(text)


def join(left: str, right: str, *, by: str = "") -> str:
    return left + by + right


def check(pool: Pool) -> None:
    assert_type(pool.submit(length, "a"), Future[int])
    assert_type(pool.submit(length, "a").result(), int)
    assert_type(pool.submit(length, "a").exception(), BaseException | None)
    assert_type(pool.submit(join, "a", "b", by="-").get(1.0), str)
    assert_type(pool.apply(length, ("a",)), int)
    assert_type(pool.apply_async(length, ["a"], callback=print), Future[int])
    assert_type(pool.map(length, ["a", "b"]), list[int])
    assert_type(pool.map_async(length, ["a"]).get(), list[int])
    assert_type(pool.starmap(join, [("a", "b")]), list[str])
    assert_type(next(pool.imap(length, ["a"])), int)
    assert_type(pool.imap_unordered(length, ["a"]).next(timeout=1.0), int)
    results: Iterator[int] = pool.imap(length, iter(["a"]), buffersize=3)
    assert_type(list(results), list[int])
    assert_type(pool.map(length, ["a"], timeout=1.0), list[int])
    view = pool.options(
        timeout=1.0, retries=2, retry_on=(OSError, WorkerDied), backoff=0.5, buffersize=9, progress=True
    )
    assert_type(view, Pool)
    assert_type(view.submit(length, "a").kill(), bool)
    with pool as same:
        assert_type(same, Pool)


@contextmanager
def opened(path: str) -> Generator[IO[str]]:
    with open(path) as file:
        yield file


def workers() -> None:
    assert_type(Pool(env={"A": "1"}, threads_per_worker=2, cpu_affinity=True, seed=1).seed, int)
    Pool(2, env=[{"A": "1"}, {}], cpu_affinity=[0, [1, 2]], preload=["numpy"])
    Pool(2, env=lambda slot: {"A": str(slot)}, cpu_affinity=range(2), worker_context=lambda: opened("a"))
    Pool(2, worker_context=ThreadPoolExecutor)
    Pool(2, worker_context=nullcontext)
    assert_type(get_context("spawn").Pool(2, env={"A": "1"}, seed=2, worker_context=lambda: opened("a")), Pool)
    PoolExecutor(2, env={"A": "1"}, threads_per_worker=1, seed=3)
    task = current_task()
    assert_type(task, TaskInfo)
    assert_type((task.index, task.attempt, task.worker, task.seed), tuple[int, int, int, int])


async def await_it(pool: Pool) -> None:
    assert_type(await pool.submit(length, "a"), int)


def contexts() -> None:
    context = get_context("spawn")
    assert_type(context.Pool(2), Pool)
    process = Process(target=length, args=("a",))
    assert_type(process.exitcode, int | None)
    assert_type(current_process().name, str)
