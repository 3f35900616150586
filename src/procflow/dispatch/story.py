"""The story of a task: which workers had it, and what became of them, from what the scheduler remembers."""

from __future__ import annotations

from procflow.errors import ProcflowError, describe_exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

__all__ = ["add_story", "story_of"]

STARTS_MOST = 12  # lines of a story in which no worker ever had the task


def story_of(history: Iterable[tuple[Any, ...]], job: int, index: int, now: float) -> tuple[str, ...]:
    """Tell what is remembered of one item of a job; if no worker ever had it, how workers started and ended.

    Args:
        history: The scheduler's.
        job: The job's number.
        index: The item's place in it.
        now: The time that the lines count back from, in seconds.
    """
    lines: list[str] = []
    starts: list[str] = []
    holders: set[int] = set()  # workers
    for kind, time, *facts in history:
        before = f"{max(0.0, now - time):.3f} s before: "
        if kind in ("sent", "returned"):
            worker, _, of, first, items = facts
            if of == job and first <= index < first + items:
                lines.append(before + _moved(kind, worker, first, items))
                (holders.add if kind == "sent" else holders.discard)(worker)
        elif kind == "retried":
            of, first, attempt = facts
            if (of, first) == (job, index):
                lines.append(f"{before}it failed, and is to begin again, as attempt {attempt}")
        elif kind in ("starting", "started", "ended"):
            told = before + _lived(kind, *facts)
            starts.append(told)
            if kind == "ended" and facts[0] in holders:
                holders.discard(facts[0])
                lines.append(told)
    return tuple(lines or starts[-STARTS_MOST:])


def _moved(kind: str, worker: int, first: int, items: int) -> str:
    if kind == "returned":
        return f"worker {worker} had not begun it; it waits again"
    others = f", with {items - 1} other{'s' * (items > 2)}" if items > 1 else ""
    return f"sent to worker {worker}{others}"


def _lived(kind: str, worker: int, slot: int, pid: int = 0, exitcode: int | None = None, _: str = "") -> str:
    if kind != "ended":
        return f"worker {worker} {'is started' if kind == 'starting' else 'is ready'}, in slot {slot}"
    return f"worker {worker}{f' (process {pid})' if pid else ''} {describe_exit(exitcode)}"


def add_story(error: BaseException, story: tuple[str, ...]) -> None:
    """Let the error tell it."""
    if isinstance(error, ProcflowError) and story:
        error.story = story
        error.add_note("\n  ".join(["What the pool did with it:", *story]))
