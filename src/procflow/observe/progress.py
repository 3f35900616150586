"""Progress of a map or a stream: counted here, shown by tqdm, rich, a line of text, or what the user gives.

    reported while it goes on (at most every INTERVAL) -> reported once as final, also on an error and when it is left

P1  A display runs in the thread that waits for the results, so it may do what that thread may.
P2  `done` counts items that are done with, whether they returned or raised. It never goes down; `final` comes once.
P3  Nothing is imported for a display that nobody asked for.
"""

from __future__ import annotations

import sys
from time import monotonic

from procflow.dispatch.lead import remaining

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal, NamedTuple, TextIO, TypeAlias

    from procflow.dispatch.future import Future

    class Report(NamedTuple):
        """How far a map or a stream is.

        Attributes:
            done: Items that are done with, whether they returned or raised.
            total: How many there are; None while that is unknown.
            final: There will be no more reports.
        """

        done: int
        total: int | None
        final: bool

    Display: TypeAlias = Callable[[Report], object]
    Progress: TypeAlias = bool | Literal["tqdm", "rich", "text"] | Display | None
else:
    from collections import namedtuple

    Report = namedtuple("Report", "done total final")

__all__ = ["Counter", "Report", "describe", "follow", "length_of", "open_display"]

INTERVAL = 0.1  # seconds between reports


def open_display(progress: Progress, total: int | None) -> Display:
    """Return what shows reports.

    Raises:
        ModuleNotFoundError: The package that shows it is not installed; it says which extra brings it.
        ValueError: It is neither a display that is known nor a callable.
    """
    if callable(progress):
        return progress
    if progress is True or progress == "tqdm":
        return _open_tqdm(total)
    if progress == "rich":
        return _open_rich(total)
    if progress == "text":
        return Text(sys.stderr)
    raise ValueError(f"unknown progress {progress!r}: choose True, 'tqdm', 'rich', 'text' or a callable")


def length_of(iterable: Any) -> int | None:
    """Return how many items there will be, None if that can't be known before."""
    try:
        return len(iterable)
    except TypeError:
        return None


class Counter:
    """Counts what a stream gives out, and reports now and then."""

    def __init__(self, total: int | None, show: Display) -> None:
        self._total, self._show = total, show
        self._done = 0
        self._due = 0.0
        self._ended = False

    def count(self) -> None:
        """One more item is done with."""
        self._done += 1
        now = monotonic()
        if now >= self._due and not self._ended:
            self._due = now + INTERVAL
            self._show(Report(self._done, self._total, False))

    def end(self) -> None:
        """The stream is at its end, or was left."""
        if not self._ended:
            self._ended = True
            self._show(Report(self._done, self._total, True))


def follow(future: Future[Any], total: int, show: Display, timeout: float | None = None) -> float | None:
    """Wait for a map, at most `timeout` seconds, and report meanwhile; return how many are left."""
    state = future.job.state
    deadline = None if timeout is None else monotonic() + timeout
    left = timeout
    try:
        while not future.is_done and left != 0.0:
            show(Report(state.resolved, total, False))
            future.wait(INTERVAL if left is None else min(INTERVAL, left))
            left = remaining(deadline)
    finally:
        show(Report(state.resolved, total, True))
    return left


class Text:
    """One line of text: rewritten in place on a terminal, else a line for each tenth of the way, or every minute."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._began = monotonic()
        self._rewrites = stream.isatty()
        self._width = 0
        self._last = (0, self._began)  # the tenths, and when, of the last line

    def __call__(self, report: Report) -> None:
        """Show it."""
        now = monotonic()
        line = describe(report.done, report.total, now - self._began, final=report.final)
        if self._rewrites:
            self._stream.write("\r" + line.ljust(self._width) + ("\n" if report.final else ""))
            self._width = len(line)
        else:
            tenths = report.done * 10 // report.total if report.total else 0
            if not report.final and tenths == self._last[0] and now - self._last[1] < 60.0:
                return
            self._last = (tenths, now)
            self._stream.write(line + "\n")
        self._stream.flush()


def describe(done: int, total: int | None, seconds: float, *, final: bool) -> str:
    """Say how far it is: `40 of 100 (40 %), 20.0/s, 3 s left`."""
    rate = done / seconds if seconds > 0 else 0.0
    parts = [f"{done} done" if total is None else f"{done} of {total} ({100 * done // total if total else 100} %)"]
    parts.append(f"{rate:.1f}/s" if rate else "0/s")
    if final:
        parts.append(f"took {seconds:.1f} s")
    elif total is not None and rate:
        parts.append(f"{(total - done) / rate:.0f} s left")
    return ", ".join(parts)


def _open_tqdm(total: int | None) -> Display:
    try:
        from tqdm.auto import tqdm  # a notebook's bar or a terminal's
    except ModuleNotFoundError as missing:
        raise _missing("tqdm") from missing

    class Bar(tqdm):
        monitor_interval = 0  # no thread that looks after bars which get no news: this one gets some every INTERVAL

    bar = Bar(total=total)

    def show(report: Report) -> None:
        bar.update(report.done - bar.n)
        if report.final:
            bar.close()

    return show


def _open_rich(total: int | None) -> Display:
    try:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TimeRemainingColumn
    except ModuleNotFoundError as missing:
        raise _missing("rich") from missing
    columns = (BarColumn(), MofNCompleteColumn(), TaskProgressColumn(show_speed=True), TimeRemainingColumn())
    bar = Progress(*columns)
    task = bar.add_task("", total=total)
    bar.start()

    def show(report: Report) -> None:
        bar.update(task, completed=report.done)
        if report.final:
            bar.stop()

    return show


def _missing(name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f"this progress bar needs {name}: pip install 'procflow[progress]', or say progress='text'", name=name
    )
