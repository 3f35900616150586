"""What a recorded run was like, and what would have helped: pure arithmetic on its events.

lanes      one for each slot: spans of packets, of start-up, and what ended a worker
figures    how long, how busy, how evenly
advice     in words, each with the figure that it rests on
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from procflow.observe.events import (
    PacketDone,
    PacketSent,
    TaskFailed,
    TaskRetried,
    TasksSubmitted,
    WorkerEnded,
    WorkerStarted,
    WorkerStarting,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from procflow.observe.events import Event

__all__ = ["Analysis", "Lane", "Span", "analyse"]

LITTLE = 0.8  # of the time busy: below it, something could be better
SHARE = 0.2  # of the time: what takes as much is worth a word
TINY = 100e-6  # seconds: a task that takes less is dearer to send than to run


@dataclass(frozen=True, slots=True)
class Span:
    """Some tasks of one job that a worker ran together, or (job 0) its start-up; times in seconds of the run."""

    begin: float
    end: float
    job: int
    first: int
    items: int


@dataclass(slots=True)
class Lane:
    """What happened in one slot: spans in their order, without overlap, and when and why a worker died there."""

    slot: int
    spans: list[Span] = field(default_factory=list[Span])
    deaths: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])

    @property
    def busy(self) -> float:
        """Seconds in which it ran tasks."""
        return sum(span.end - span.begin for span in self.spans if span.job)


@dataclass(frozen=True, slots=True)
class Analysis:
    """A run in figures; times in seconds.

    Attributes:
        begin: When it began, by the clock of the events; all other times count from there.
        seconds: From the first task that was accepted, or the first event, to the last end of one.
        tasks: How many came to an end in a worker.
        failed: How many failed.
        retried: How often one began again.
        deaths: Workers that died.
        efficiency: Which part of the workers' time was spent in tasks, 0 to 1.
        lanes: One for each slot.
        names: The function's name of each job.
        times: Tasks by the time that they took: upper bounds of powers of ten, and how many took no more than that.
        advice: What would have helped, in words.
    """

    begin: float
    seconds: float
    tasks: int
    failed: int
    retried: int
    deaths: int
    efficiency: float
    lanes: tuple[Lane, ...]
    names: dict[int, str]
    times: tuple[tuple[float, int], ...]
    advice: tuple[str, ...]


def analyse(events: Sequence[Event]) -> Analysis:
    """Look at a run's events, which are in their order."""
    begun = next((event.time for event in events if isinstance(event, TasksSubmitted)), None)
    begin = begun if begun is not None else events[0].time if events else 0.0
    lanes = _lanes(events, begin)
    done = [event for event in events if isinstance(event, PacketDone) and event.items]
    end = max((event.time for event in done), default=begin)
    seconds = max(0.0, end - begin)
    tasks = sum(event.items for event in done)
    busy = sum(lane.busy for lane in lanes)
    efficiency = min(1.0, busy / (seconds * len(lanes))) if seconds and lanes else 0.0
    deaths = sum(len(lane.deaths) for lane in lanes)
    return Analysis(
        begin=begin,
        seconds=seconds,
        tasks=tasks,
        failed=sum(event.items for event in events if isinstance(event, TaskFailed)),
        retried=sum(isinstance(event, TaskRetried) for event in events),
        deaths=deaths,
        efficiency=efficiency,
        lanes=tuple(lanes),
        names={event.job: event.name or "single calls" for event in events if isinstance(event, TasksSubmitted)},
        times=_histogram(done),
        advice=tuple(_advise(lanes, done, seconds, efficiency, deaths)),
    )


def _lanes(events: Iterable[Event], begin: float) -> list[Lane]:
    lanes: dict[int, Lane] = {}
    slots: dict[int, int] = {}  # by worker
    asked: dict[int, float] = {}  # workers that are starting, and since when
    ended: dict[int, float] = {}  # by worker: when the last of its packets was
    sent: dict[tuple[int, int], float] = {}  # by worker and packet
    for event in events:
        if isinstance(event, WorkerStarting | WorkerStarted):
            lane = lanes.setdefault(event.slot, Lane(event.slot))
            slots[event.worker] = event.slot
            if isinstance(event, WorkerStarting):
                asked[event.worker] = event.time
            elif event.worker in asked:
                lane.spans.append(Span(asked.pop(event.worker) - begin, event.time - begin, 0, 0, 0))
                ended[event.worker] = event.time
        elif isinstance(event, WorkerEnded):
            lane = lanes.setdefault(event.slot, Lane(event.slot))
            if event.exitcode:
                lane.deaths.append((event.time - begin, event.text or f"exit code {event.exitcode}"))
        elif isinstance(event, PacketSent):
            sent[event.worker, event.packet] = event.time
        elif isinstance(event, PacketDone):
            slot = slots.setdefault(event.worker, len(slots))  # it was there before the recording
            earliest = max(sent.pop((event.worker, event.packet), -inf), ended.get(event.worker, -inf))
            start = min(event.time, max(event.time - event.busy, earliest))
            ended[event.worker] = event.time
            if event.items:
                span = Span(start - begin, event.time - begin, event.job, event.first, event.items)
                lanes.setdefault(slot, Lane(slot)).spans.append(span)
    return [lanes[slot] for slot in sorted(lanes)]


def _histogram(done: Iterable[PacketDone]) -> tuple[tuple[float, int], ...]:
    """Count tasks by their time, as the mean of their packet: all of a packet are taken for alike."""
    bounds = [10.0**power for power in range(-6, 4)]
    counts = [0] * (len(bounds) + 1)
    for event in done:
        each = event.busy / event.items
        counts[next((place for place, bound in enumerate(bounds) if each <= bound), len(bounds))] += event.items
    return tuple(zip([*bounds, inf], counts, strict=True))


def _advise(
    lanes: Sequence[Lane], done: Sequence[PacketDone], seconds: float, efficiency: float, deaths: int
) -> Iterable[str]:
    if deaths:
        died = f"{deaths} workers died" if deaths > 1 else "A worker died"
        yield f"{died}. Look at the errors of the tasks that were lost; each tells its story."
    if not done or not seconds or efficiency >= LITTLE:
        return
    tasks, busy = sum(event.items for event in done), sum(event.busy for event in done)
    longest = max(done, key=lambda event: event.busy / event.items)
    start_up = sum(span.end - span.begin for lane in lanes for span in lane.spans if not span.job)
    before = False
    if start_up > SHARE * seconds * len(lanes):
        before = True
        part = _percent(start_up / (seconds * len(lanes)))
        yield (
            f"Start-up took {start_up:.3g} s of the workers' time, {part}: keep one pool for all calls, import less in "
            "the tasks' module, or give `preload=`."
        )
    if len(done) < 2 * len(lanes) and tasks >= len(lanes):
        before = True
        yield (
            f"Tasks went out in {len(done)} packets to {len(lanes)} workers: too few to be spread evenly. Leave "
            "`chunksize` out, or make it smaller."
        )
    elif tasks < len(lanes):
        before = True
        yield f"There were {tasks} tasks for {len(lanes)} workers: cut the work into more tasks, or take fewer workers."
    most = longest.busy / longest.items
    if most > SHARE * seconds and most > 2 * busy / tasks:
        before = True
        yield (
            f"Task {longest.first} took {most:.3g} s of {seconds:.3g} s in all: others were done before it. Begin it "
            "first, or cut it up."
        )
    if busy / tasks < TINY and tasks > len(lanes):
        before = True
        yield (
            f"A task took {busy / tasks * 1e6:.3g} microseconds, less than it costs to send: let each do more, or use "
            "map without `chunksize`, which sends many together."
        )
    if not before:
        yield (
            f"The workers were busy for {_percent(efficiency)} of the time and waited for the rest: the program gives "
            "out tasks, or takes results, more slowly than they run. Does it compute meanwhile?"
        )


def _percent(part: float) -> str:
    return f"{100 * part:.0f} %"
