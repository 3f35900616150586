"""Uses of Process that mypy and pyright must reject. Each such line says so."""

from __future__ import annotations

from procflow import Process


def length(text: str) -> int:
    return len(text)


def wrong() -> None:
    process = Process(target=length, args=("a",))
    text: str = process.result()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    other: Process[str] = process  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    process.result("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Process(target="length")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Process(target=length, env={"A": 1})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    Process(target=length, preload=[1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    print(text, other)
