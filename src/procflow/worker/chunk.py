"""What a worker runs for several calls of one function that were submitted as one; its own module, as that is light."""

from __future__ import annotations

from procflow.worker.task import present_teller, tell_in_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from procflow.worker.task import Place

    R = TypeVar("R")

__all__ = ["run_chunk"]


def run_chunk(function: Callable[..., R], chunk: list[tuple[Any, ...]], job: int, start: int) -> list[R]:
    """Return the results of all the calls; the first that fails is the failure of all.

    They are the items from `start` on of this job, and `current_task()` says so.
    """
    results: list[R] = []
    whole = present_teller()

    def place() -> Place | None:
        found, at = whole(), start + len(results)
        return None if found is None else (at, *found[1:4], job, at)

    before = tell_in_thread(place)
    try:
        for arguments in chunk:
            results.append(function(*arguments))  # noqa: PERF401 - `place` looks at how many there are
    finally:
        tell_in_thread(before)
    return results
