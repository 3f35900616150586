"""What mypy and pyright must infer of Process. Checked by both; nothing is run."""

from __future__ import annotations

from typing import Any, assert_type

from procflow import Process, ProcessDied, get_context


def length(text: str) -> int:
    return len(text)


def nothing() -> None:
    pass


class Doubler(Process[int]):
    def run(self) -> int:  # type: ignore[override]  # mypy compares it with multiprocessing's own, too
        return 42


class Old(Process):
    def run(self) -> None:
        pass


def check(error: ProcessDied) -> None:
    process = Process(target=length, args=("a",), name="measure", daemon=True)
    assert_type(process, Process[int])
    assert_type(process.result(), int)
    assert_type(process.result(timeout=1.0), int)
    assert_type(process.stop(grace=1.0), int | None)
    with Process(target=length) as same:
        assert_type(same.result(), int)
    assert_type(Process(target=nothing), Process[None])
    assert_type(Doubler().result(), int)
    assert_type(Old().result(), Any)
    assert_type(get_context("spawn").Process(target=length, args=("a",)).result(), int)
    assert_type(Process(target=length, args=("a",), env={"A": "1"}, preload=["numpy"]), Process[int])
    wider: Process[object] = process
    plain = Process(name="nothing to do")
    plain.start()
    assert_type((error.name, error.pid, error.exitcode), tuple[str, int, int | None])
    print(wider)
