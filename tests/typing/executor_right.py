"""What mypy and pyright must infer of PoolExecutor. Checked by both; nothing is run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from typing import assert_type

from procflow import PoolExecutor


def length(text: str) -> int:
    return len(text)


def join(left: str, right: str, *, by: str = "") -> str:
    return left + by + right


def check(executor: PoolExecutor) -> None:
    assert_type(executor.submit(length, "a"), Future[int])
    assert_type(executor.submit(join, "a", "b", by="-").result(1.0), str)
    assert_type(executor.map(length, ["a"], timeout=1.0, chunksize=2), Iterator[int])
    assert_type(executor.map(join, ["a"], ["b"], buffersize=3), Iterator[str])
    any_executor: Executor = executor
    assert_type(any_executor.submit(length, "a"), Future[int])
    with executor as same:
        assert_type(same, PoolExecutor)


async def run_in(executor: PoolExecutor) -> None:
    assert_type(await asyncio.get_running_loop().run_in_executor(executor, length, "a"), int)
