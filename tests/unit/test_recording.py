"""What a recorded run says, from made-up events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from procflow.observe.analysis import Lane, Span, analyse
from procflow.observe.audience import Subscription
from procflow.observe.events import (
    Event,
    EventsLost,
    PacketDone,
    PacketSent,
    TaskFailed,
    TaskRetried,
    TasksSubmitted,
    WorkerEnded,
    WorkerStarted,
    WorkerStarting,
)
from procflow.observe.recording import EVENTS_MOST, Run, trace_of

if TYPE_CHECKING:
    from collections.abc import Callable

STARTED: list[Event] = [
    WorkerStarting(9.0, 1, 0),
    WorkerStarting(9.0, 2, 1),
    WorkerStarted(9.1, 1, 0),
    WorkerStarted(9.2, 2, 1),
]


def packet(
    worker: int, number: int, sent: float, done: float, busy: float, first: int = 0, items: int = 1
) -> list[Event]:
    return [
        PacketSent(sent, worker, number, 1, first, items),
        PacketDone(done, worker, number, 1, first, items, busy),
    ]


def run_of(events: list[Event]) -> Run:
    def subscribe(callback: Callable[[Event], object]) -> Subscription:
        for event in events:
            callback(event)
        return Subscription(lambda: None)

    return Run(subscribe)


EVEN: list[Event] = [
    *STARTED,
    TasksSubmitted(10.0, 1, 0, 4, "work"),
    *packet(1, 1, 10.0, 11.0, 1.0, 0),
    *packet(2, 2, 10.0, 11.0, 1.0, 1),
    *packet(1, 3, 10.5, 12.0, 1.0, 2),
    *packet(2, 4, 10.5, 12.0, 1.0, 3),
]


def test_a_run_without_gaps_is_efficient_and_gets_no_advice() -> None:
    found = analyse(EVEN)
    assert (found.seconds, found.tasks, found.failed, found.deaths) == (2.0, 4, 0, 0)
    assert found.efficiency == 1.0
    assert found.advice == ()
    assert found.names == {1: "work"}
    assert found.lanes[0].spans == [
        Span(-1.0, 9.1 - 10.0, 0, 0, 0),  # its start-up, before the first task
        Span(0.0, 1.0, 1, 0, 1),
        Span(1.0, 2.0, 1, 2, 1),
    ]


def test_what_a_worker_was_late_to_tell_does_not_overlap_what_it_did_before() -> None:
    found = analyse([*STARTED, *packet(1, 1, 10.0, 11.0, 1.0), *packet(1, 2, 10.0, 11.1, 0.5, 1)])
    spans = [span for span in found.lanes[0].spans if span.job]
    assert spans[0].end <= spans[1].begin


def test_workers_that_were_there_before_the_recording_have_lanes_too() -> None:
    found = analyse([*packet(7, 1, 1.0, 2.0, 1.0), *packet(9, 2, 1.0, 2.0, 1.0)])
    assert [lane.slot for lane in found.lanes] == [0, 1]


def test_tasks_are_counted_by_the_time_they_take() -> None:
    found = analyse([*packet(1, 1, 0.0, 1.0, 0.5, 0, 100), *packet(1, 2, 1.0, 3.0, 2.0, 100, 1)])
    assert dict(found.times)[0.01] == 100
    assert dict(found.times)[10.0] == 1
    assert sum(count for _, count in found.times) == 101


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([*STARTED, *packet(1, 1, 9.1, 9.15, 0.05), *packet(2, 2, 9.2, 9.25, 0.05)], "Start-up took"),
        (
            [TasksSubmitted(0.0, 1, 0, 9, "f"), *packet(1, 1, 0, 9, 9.0, 0, 9), *packet(2, 2, 0, 1, 1.0, 9, 1)],
            "packets to 2",
        ),
        ([*STARTED, *packet(1, 1, 10, 30, 20.0)], "1 tasks for 2 workers"),
        (
            [*packet(1, 1, 0, 9, 9.0)] + [e for n in range(9) for e in packet(2, n + 2, 0, n * 0.1, 0.1, n + 1)],
            "Begin it first",
        ),
        ([e for n in range(50) for e in packet(n % 2, n, n * 0.01, n * 0.01 + 0.001, 1e-5, n)], "less than it costs"),
        (
            [e for n in range(50) for e in packet(n % 2, n, n * 0.1, n * 0.1 + 0.05, 0.01, n)],
            "Does it compute meanwhile",
        ),
        ([WorkerEnded(1.0, 1, 0, 41, -9, ""), *packet(1, 1, 0, 1, 1.0)], "A worker died"),
    ],
)
def test_it_says_what_would_have_helped(events: list[Event], words: str) -> None:
    assert any(words in advice for advice in analyse(events).advice), analyse(events).advice


def test_nothing_recorded_is_no_error() -> None:
    found = analyse([])
    assert (found.seconds, found.tasks, found.lanes, found.advice) == (0.0, 0, (), ())
    assert Lane(0).busy == 0.0


def test_a_trace_has_a_lane_for_each_worker_and_what_went_wrong() -> None:
    events = [
        *EVEN,
        TaskFailed(11.5, 1, 2, 1, "raised"),
        TaskRetried(11.6, 1, 2, 2),
        WorkerEnded(11.9, 1, 0, 41, -9, ""),
    ]
    trace = json.loads(json.dumps(trace_of(run_of(events))))
    found = trace["traceEvents"]
    lanes = {one["args"]["name"] for one in found if one["name"] == "thread_name"}
    assert lanes == {"worker 0", "worker 1"}
    boxes = [one for one in found if one["ph"] == "X"]
    assert [one["name"] for one in boxes].count("work") == 4
    assert sum(one["args"].get("tasks", 0) for one in boxes) == 4
    assert all(one["dur"] >= 0 for one in boxes)
    assert {one["name"] for one in found if one["ph"] == "i"} == {
        "a task failed",
        "a task begins again",
        "a worker died",
    }
    times = [one["ts"] for one in found if "ts" in one]
    assert times == sorted(times)
    assert "4 tasks in 2.000 s" in trace["otherData"]["summary"]


def test_a_run_is_saved_whole_or_not_at_all(tmp_path: Path) -> None:
    run = run_of(EVEN)
    run.save(tmp_path / "run.json")
    assert json.loads((tmp_path / "run.json").read_text())["displayTimeUnit"] == "ms"
    run.save(str(tmp_path / "run.html"))
    with pytest.raises(ValueError, match="json"):
        run.save(tmp_path / "run.txt")
    with pytest.raises(OSError):
        run.save(tmp_path / "missing" / "run.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.html", "run.json"]


def test_what_is_missing_is_counted() -> None:
    run = run_of([EventsLost(1.0, 7)])
    assert (run.events, run.missed) == ([], 7)
    run.events = [TaskFailed(0.0, 1, 0, 1, "raised")] * EVENTS_MOST
    run._take(TaskFailed(0.0, 1, 0, 1, "raised"))
    assert (len(run.events), run.missed) == (EVENTS_MOST, 8)
    assert repr(run) == f"<Run: recording, {EVENTS_MOST} events>"
    run.stop()
    run.stop()
    assert "over" in repr(run)
