"""A recorded run: the events of a pool while it was recorded, and the files that show them."""

from __future__ import annotations

import json
import os
from math import inf
from pathlib import Path

from procflow.observe.analysis import Analysis, analyse
from procflow.observe.events import EventsLost, TaskFailed, TaskRetried

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Self

    from procflow.observe.audience import Subscription
    from procflow.observe.events import Event

__all__ = ["EVENTS_MOST", "Run", "check_kind"]

EVENTS_MOST = 1_000_000  # some 200 MB; they are packets, of up to 65,536 tasks


class Run:
    """What `Pool.record` gives: it records until its `with` block ends, or `stop()`.

    Attributes:
        events: What has happened, in its order, as `Pool.subscribe` tells it; 1,000,000 at most.
        missed: How many more there were.
    """

    def __init__(self, subscribe: Callable[[Callable[[Event], object]], Subscription]) -> None:
        self.events: list[Event] = []
        self.missed = 0
        self._subscription: Subscription | None = subscribe(self._take)

    def _take(self, event: Event) -> None:
        if isinstance(event, EventsLost):
            self.missed += event.events
        elif len(self.events) < EVENTS_MOST:
            self.events.append(event)
        else:
            self.missed += 1

    def stop(self) -> None:
        """Record no more. Idempotent."""
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "recording" if self._subscription is not None else "over"
        return f"<Run: {state}, {len(self.events)} events>"

    def analysis(self) -> Analysis:
        """Return the run in figures, with what would have helped."""
        return analyse(self.events)

    def summary(self) -> str:
        """Return the run in some lines of text."""
        found = self.analysis()
        lines = [
            f"{found.tasks} tasks in {found.seconds:.3f} s by {len(found.lanes)} workers, busy "
            f"{100 * found.efficiency:.0f} % of the time; {found.failed} failed, {found.retried} began again, "
            f"{found.deaths} workers died"
        ]
        for lane in found.lanes:
            packets = sum(span.job > 0 for span in lane.spans)
            tasks = sum(span.items for span in lane.spans)
            lines.append(f"worker {lane.slot}: {tasks} tasks in {packets} packets, busy {lane.busy:.3f} s")
        return "\n".join([*lines, *found.advice])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the run as a file that shows it.

        "run.html" is one page for the browser, which needs nothing else; "run.json" a Chrome trace, which Perfetto
        opens (ui.perfetto.dev). An existing file is replaced, once the new one is written whole.

        Raises:
            ValueError: The name ends in something else than `.html` or `.json`.
            OSError: It can't be written.
        """
        target = check_kind(path)
        text = page_of(self) if target.suffix == ".html" else json.dumps(trace_of(self), separators=(",", ":"))
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            draft.write_text(text, encoding="utf-8")
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)


def check_kind(path: str | os.PathLike[str]) -> Path:
    """Return it as a Path; ValueError if a run can't be saved under such a name."""
    target = Path(path)
    if target.suffix not in (".html", ".json"):
        raise ValueError(
            f"a run is saved as .html, a page, or .json, a Chrome trace; {target.name!r} ends in {target.suffix!r}"
        )
    return target


def trace_of(run: Run) -> dict[str, Any]:
    """Return the run in the Trace Event Format: a lane for each slot, times in microseconds.

    https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
    """
    found = run.analysis()
    out: list[dict[str, Any]] = [{"ph": "M", "pid": 1, "name": "process_name", "args": {"name": "procflow pool"}}]
    for lane in found.lanes:
        here = {"pid": 1, "tid": lane.slot + 1}
        out.append({"ph": "M", **here, "name": "thread_name", "args": {"name": f"worker {lane.slot}"}})
        for span in lane.spans:
            name = found.names.get(span.job, "tasks") if span.job else "start-up"
            about = {"job": span.job, "first": span.first, "tasks": span.items} if span.job else {}
            begin, lasted = _microseconds(span.begin), _microseconds(span.end - span.begin)
            out.append({"ph": "X", **here, "name": name, "ts": begin, "dur": lasted, "args": about})
        for time, why in lane.deaths:
            out.append(
                {"ph": "i", "s": "t", **here, "name": "a worker died", "ts": _microseconds(time), "args": {"why": why}}
            )
    begin = found.begin
    for event in run.events:
        if isinstance(event, TaskFailed):
            told = {"job": event.job, "first": event.first, "tasks": event.items, "why": event.why}
            name = "a task failed"
        elif isinstance(event, TaskRetried):
            told = {"job": event.job, "first": event.first, "attempt": event.attempt}
            name = "a task begins again"
        else:
            continue
        out.append(
            {
                "ph": "i",
                "s": "p",
                "pid": 1,
                "tid": 0,
                "name": name,
                "ts": _microseconds(event.time - begin),
                "args": told,
            }
        )
    return {
        "traceEvents": sorted(out, key=lambda one: one.get("ts", -1e18)),
        "displayTimeUnit": "ms",
        "otherData": {"summary": run.summary(), "missed": run.missed},
    }


def page_of(run: Run) -> str:
    """Return the run as one HTML page. What comes from the user, as functions' names, is data in it, never markup."""
    found = run.analysis()
    data = {
        "seconds": found.seconds,
        "figures": [
            [f"{found.seconds:.3f} s", "from the first task to the last"],
            [f"{found.tasks:,}", "tasks"],
            [f"{100 * found.efficiency:.0f} %", f"of the time of {len(found.lanes)} workers was spent in tasks"],
            [f"{found.failed:,}", "failed"],
            [f"{found.retried:,}", "began again"],
            [f"{found.deaths:,}", "workers died"],
        ],
        "advice": [*found.advice, *([f"{run.missed} events are missing: there were too many."] if run.missed else [])],
        "deaths": found.deaths,
        "names": {str(job): name for job, name in found.names.items()},
        "order": list(found.names),
        "times": [[None if bound == inf else bound, count] for bound, count in found.times],
        "lanes": [
            {
                "slot": lane.slot,
                "spans": [[round(s.begin, 7), round(s.end, 7), s.job, s.first, s.items] for s in lane.spans],
                "deaths": [[time, why] for time, why in lane.deaths],
            }
            for lane in found.lanes
        ],
    }
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")  # so that no name can end the script
    return Path(__file__).with_name("timeline.html").read_text(encoding="utf-8").replace("@DATA@", text, 1)


def _microseconds(seconds: float) -> float:
    return round(seconds * 1e6, 3)
