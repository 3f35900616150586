"""Calls that mypy and pyright must reject. Each such line says so; a checker that accepts it complains there."""

from __future__ import annotations

from procflow import PoolExecutor


def length(text: str) -> int:
    return len(text)


def wrong(executor: PoolExecutor) -> None:
    executor.submit(length)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    executor.submit(length, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    text: str = executor.submit(length, "a").result()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    executor.map(length, ["a"], buffersize="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    PoolExecutor(2, maxtasksperchild=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    print(text)
