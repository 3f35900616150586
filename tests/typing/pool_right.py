"""What mypy and pyright must infer of Pool, Process and Future. Checked by both; nothing is run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_type

from procflow import Future, Pool, Process, WorkerDied, current_process, get_context


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


async def await_it(pool: Pool) -> None:
    assert_type(await pool.submit(length, "a"), int)


def contexts() -> None:
    context = get_context("spawn")
    assert_type(context.Pool(2), Pool)
    process = Process(target=length, args=("a",))
    assert_type(process.exitcode, int | None)
    assert_type(current_process().name, str)
