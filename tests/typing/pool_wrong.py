"""Calls that mypy and pyright must reject. Each such line says so; a checker that accepts it complains there."""

from __future__ import annotations

from procflow import Pool, PoolExecutor, current_task, get_context


def length(text: str) -> int:
    return len(text)


def wrong(pool: Pool) -> None:
    pool.submit(length)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    pool.submit(length, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pool.submit(length, text="a", other=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    pool.map(length, [1, 2, 3])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pool.map(length, "ab", chunksize="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pool.imap(length, [1])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pool.options(timeout="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pool.options(retry_on=ValueError("x"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    text: str = pool.submit(length, "a").result()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    texts: list[str] = pool.map(length, ["a"])  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    Pool(2, engine="remote")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Pool(env={"A": 1})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    Pool(cpu_affinity="0")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Pool(worker_context=length)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Pool(seed="a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    get_context("spawn").Pool(seed="a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    PoolExecutor(2, enf={})  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    current_task().index = 3  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    print(text, texts)
