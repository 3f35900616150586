"""What happens in a pool is told, in order, on every engine; and its statistics add up."""

from __future__ import annotations

import json
import logging
import threading
from itertools import pairwise
from pathlib import Path

import pytest

import procflow
from procflow.observe.audience import WAITING
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
from tests.contract import functions as f
from tests.contract.conftest import Open
from tests.support import DEADLOCK


def test_what_was_sent_was_done_and_nothing_else(pool: procflow.Pool) -> None:
    seen: list[Event] = []
    with pool.subscribe(seen.append):
        assert pool.map(f.double, range(100), chunksize=7) == [2 * n for n in range(100)]
        assert [pool.submit(f.double, n).result(DEADLOCK) for n in range(5)] == [0, 2, 4, 6, 8]
    submitted = [event for event in seen if isinstance(event, TasksSubmitted)]
    assert [event.name for event in submitted if event.items == 100] == ["double"]
    assert sum(event.items for event in submitted) == 105
    done = [event for event in seen if isinstance(event, PacketDone)]
    assert sum(event.items for event in done) == 105
    assert all(event.busy >= 0.0 for event in done)
    sent = {(event.packet, event.worker) for event in seen if isinstance(event, PacketSent)}
    assert {(event.packet, event.worker) for event in done} <= sent
    assert all(a.time <= b.time for a, b in pairwise(seen))


def test_nothing_is_told_when_the_subscription_is_closed(pool: procflow.Pool) -> None:
    seen: list[Event] = []
    subscription = pool.subscribe(seen.append)
    assert repr(subscription) == "<Subscription: open>"
    subscription.close()
    subscription.close()
    assert repr(subscription) == "<Subscription: closed>"
    before = len(seen)
    assert pool.apply(f.double, (1,)) == 2
    assert len(seen) == before


def test_two_listen_and_one_of_them_raises(pool: procflow.Pool, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Event] = []

    def refuse(event: Event) -> None:
        raise RuntimeError("I do not want to know")

    with pool.subscribe(refuse), pool.subscribe(seen.append):
        assert pool.map(f.double, range(3)) == [0, 2, 4]
    assert sum(event.items for event in seen if isinstance(event, PacketDone)) == 3
    with caplog.at_level(logging.ERROR, "procflow"):
        assert "what listens to a pool raised" in caplog.text


def test_a_listener_may_use_the_pool(pool: procflow.Pool) -> None:
    doubled: list[int] = []

    def ask(event: Event) -> None:
        if isinstance(event, TasksSubmitted) and event.items == 3:
            doubled.append(pool.apply(f.double, (21,)))

    with pool.subscribe(ask):
        assert pool.map(f.double, range(3)) == [0, 2, 4]
        assert pool.map(f.double, range(2)) == [0, 2]
    assert doubled == [42]


def test_failures_and_further_attempts_are_told(open_local: Open, tmp_path: Path) -> None:
    seen: list[Event] = []
    with open_local(1) as pool, pool.subscribe(seen.append):
        assert (
            pool.options(retries=1, retry_on=procflow.WorkerDied)
            .submit(f.die_once, tmp_path / "tried")
            .result(DEADLOCK)
        )
        assert isinstance(pool.submit(f.fail, 1).exception(DEADLOCK), ValueError)
        assert isinstance(pool.submit(f.die, "SIGKILL").exception(DEADLOCK), procflow.WorkerDied)
        assert pool.apply(f.double, (2,)) == 4
        statistics = pool.statistics()
    assert [event.why for event in seen if isinstance(event, TaskFailed)] == ["raised", "died"]
    assert [event.attempt for event in seen if isinstance(event, TaskRetried)] == [2]
    ended = [event for event in seen if isinstance(event, WorkerEnded)]
    assert [event.exitcode for event in ended[:2]] == [-9, -9]
    assert sum(isinstance(event, WorkerStarted) for event in seen) >= 2
    assert (statistics.failed, statistics.retried, statistics.deaths) == (2, 1, 2)


def test_a_slow_listener_is_told_how_much_it_has_missed(open_own: Open) -> None:
    seen: list[Event] = []
    gate = threading.Event()

    def listen(event: Event) -> None:
        gate.wait(DEADLOCK)
        seen.append(event)

    with open_own(1) as pool:
        pool.apply(f.double, (1,))
        audience_of = pool.subscribe(listen)
        audience = pool._core.audience
        happened = [("failed", 1.0, 1, n, 1, "raised") for n in range(WAITING + 50)]
        calls = pool._core.callbacks
        assert audience is not None
        audience.tell(happened, lambda _: None, calls)
        gate.set()
        calls.run()
        audience.tell([("failed", 2.0, 1, 0, 1, "raised")], lambda _: None, calls)
        calls.run()
        audience_of.close()
    lost = [event for event in seen if isinstance(event, EventsLost)]
    assert sum(event.events for event in lost) >= 50
    assert len(seen) <= WAITING + 60


# -- statistics --


def test_statistics_add_up(pool: procflow.Pool) -> None:
    pool.map(f.double, range(1000), chunksize=10)
    for n in range(5):
        pool.apply(f.double, (n,))
    found = pool.statistics()
    assert found.done == 1005
    assert (found.queued, found.running, found.failed, found.retried, found.deaths) == (0, 0, 0, 0, 0)
    assert sum(worker.tasks for worker in found.workers) == 1005
    assert sum(size * count for size, count in found.packet_sizes.items()) == 1005
    assert [worker.slot for worker in found.workers] == sorted({worker.slot for worker in found.workers})
    assert isinstance(pool.submit(f.fail, 1).exception(DEADLOCK), ValueError)
    assert pool.statistics().failed == 1


def test_statistics_know_the_workers_processes(open_local: Open) -> None:
    with open_local(2) as pool:
        pids = set(pool.map(f.pid, range(50), chunksize=1))
        pool.apply(len, (bytes(10_000_000),))
        found = pool.statistics()
    for worker in found.workers:
        assert worker.state == "ready"
        assert worker.rss is not None
        assert worker.rss > 1_000_000
        assert worker.start_up is not None
        assert worker.start_up > 0.0
        assert worker.waiting is not None
        assert worker.busy + worker.waiting > 0.0
    assert pids <= {worker.pid for worker in found.workers}
    assert sum(worker.bytes_in or 0 for worker in found.workers) > 10_000_000
    assert all(worker.bytes_out for worker in found.workers)


def test_statistics_tell_what_waits_and_what_is_held(open_local: Open, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with open_local(1) as pool:
        futures = [pool.submit(f.wait_for, gate) for _ in range(10)]
        found = pool.statistics()
        assert found.queued + found.running == 10
        assert found.done == 0
        gate.touch()
        for future in futures:
            future.result(DEADLOCK)
        assert pool.statistics().done == 10


# -- the story of a task --


def test_an_error_of_the_pools_tells_the_story_of_its_task(open_local: Open) -> None:
    with open_local(1) as pool:
        pids = pool.map(f.pid, range(3))
        error = pool.submit(f.die, "SIGKILL").exception(DEADLOCK)
    assert isinstance(error, procflow.WorkerDied)
    sent, ended = error.story
    assert "sent to worker 1" in sent
    assert f"process {pids[0]}) died (SIGKILL)" in ended
    assert any(ended in note for note in error.__notes__)
    with open_local(1, f.fail, (1,)) as pool:
        error = pool.submit(f.double, 1).exception(DEADLOCK)
    assert isinstance(error, procflow.InitializerError)
    assert sum("exited with code 1" in line for line in error.story) == 3


# -- a recorded run --


def test_a_recorded_run_has_all_that_happened(pool: procflow.Pool, tmp_path: Path) -> None:
    with pool.record() as run:
        pool.map(f.double, range(500), chunksize=5)
    pool.map(f.double, range(500), chunksize=5)
    found = run.analysis()
    assert found.tasks == 500
    assert found.seconds > 0.0
    assert 0.0 < found.efficiency <= 1.0
    assert "500 tasks in" in run.summary()
    for lane in found.lanes:
        assert all(a.end <= b.begin + 1e-9 for a, b in pairwise(lane.spans)), lane.spans
    run.save(tmp_path / "run.json")
    boxes = [one for one in json.loads((tmp_path / "run.json").read_text())["traceEvents"] if one["ph"] == "X"]
    assert sum(one["args"].get("tasks", 0) for one in boxes) == 500


def test_a_recorded_run_has_deaths_and_attempts(open_local: Open, tmp_path: Path) -> None:
    with open_local(2) as pool, pool.record() as run:
        patient = pool.options(retries=1, retry_on=procflow.WorkerDied)
        assert patient.submit(f.die_once, tmp_path / "tried").result(DEADLOCK)
        pool.map(f.double, range(20))
    found = run.analysis()
    assert (found.deaths, found.retried, found.tasks) == (1, 1, 21)


def test_a_pool_may_be_recorded_from_its_beginning_to_its_end(open_pool: Open, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    with open_pool(2, record=file) as pool:
        pool.options(retries=1).map(f.double, range(100))
        assert not file.exists()
    found = json.loads(file.read_text())
    assert "100 tasks in" in found["otherData"]["summary"]
    with pytest.raises(ValueError, match="html"):
        open_pool(2, record=tmp_path / "run.txt")


def test_a_pool_that_ends_by_an_exception_saves_its_recording_too(open_own: Open, tmp_path: Path) -> None:
    file = tmp_path / "run.html"
    with pytest.raises(KeyError), open_own(1, record=file) as pool:
        pool.apply(f.double, (1,))
        raise KeyError
    assert "<!doctype html>" in file.read_text()


def test_who_listens_is_told_of_the_workers_that_are_there(open_local: Open) -> None:
    seen: list[Event] = []
    with open_local(2) as pool:
        pool.map(f.double, range(100), chunksize=1)
        with pool.subscribe(seen.append):
            pool.apply(f.double, (1,))
    there = [event for event in seen if isinstance(event, WorkerStarting | WorkerStarted)]
    assert {event.slot for event in there} == {0, 1}
    assert all(event.time <= seen[-1].time for event in there)
