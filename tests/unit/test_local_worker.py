"""What the pool asks of a worker through its status page. The page is written here as the worker's process would."""

from __future__ import annotations

import os
from collections.abc import Iterator
from time import monotonic

import pytest

from procflow.engines.local_worker import Expelled, LocalWorker, Sent
from procflow.start.spool import anonymous_file
from procflow.wire.channel import open_channel
from procflow.wire.parcels import Reader
from procflow.worker.status import (
    BEGUN,
    CUT_PAUSE,
    NOTHING,
    OWN_FRAME,
    PAGE_SIZE,
    REVOKED,
    RUNS,
    SINCE,
    STOP,
    STOP_SEQ,
    WIDTH_BITS,
)
from tests.support import DEADLOCK


@pytest.fixture
def worker() -> Iterator[LocalWorker]:
    results = anonymous_file("procflow-results")
    worker = LocalWorker(1, open_channel(portable=True), Reader(results, mapped=False), portable=True)
    yield worker
    worker.close_all()
    os.close(results)


def send(worker: LocalWorker, seq: int, first: int) -> None:
    worker.sent[seq] = Sent(1, first, ())


def run(worker: LocalWorker, seq: int, item: int) -> None:
    worker._page[BEGUN], worker._page[RUNS] = seq, item << WIDTH_BITS | 1


def test_what_was_not_begun_is_revoked(worker: LocalWorker) -> None:
    send(worker, 5, 50)
    send(worker, 6, 60)
    run(worker, 5, 50)
    cut = worker.revoke()
    assert cut is not None
    assert (cut.seq, cut.stop, worker._page[REVOKED]) == (6, 60, 6)
    assert worker.obeys(cut)


def test_nothing_is_revoked_of_a_worker_that_has_read_all(worker: LocalWorker) -> None:
    assert worker.revoke() is None
    send(worker, 5, 50)
    run(worker, 5, 50)
    assert worker.revoke() is None


def test_a_revocation_that_came_to_nothing_is_asked_for_again(worker: LocalWorker) -> None:
    """The worker began the packet before the revoked one meanwhile, so nobody could tell how far it would come."""
    send(worker, 5, 50)
    send(worker, 6, 60)
    worker._page[RUNS] = NOTHING
    first = worker.revoke()
    run(worker, 5, 50)
    assert first is not None
    assert not worker.obeys(first)
    again = worker.revoke()
    assert again is not None
    assert again.seq == 6
    assert worker.obeys(again)


def test_one_packet_is_revoked_at_a_time(worker: LocalWorker) -> None:
    """There is one word for it: the packet that it named before would be run, although others have got its items."""
    for seq in (5, 6):
        send(worker, seq, 10 * seq)
    run(worker, 5, 50)
    assert worker.revoke() is not None
    send(worker, 7, 70)
    assert worker.revoke() is None
    assert worker._page[REVOKED] == 6
    del worker.sent[5], worker.sent[6]  # answered
    worker._page[BEGUN] = 6
    assert worker.revoke() is not None
    assert worker._page[REVOKED] == 7


def test_a_worker_is_asked_to_stop_behind_what_it_runs(worker: LocalWorker) -> None:
    send(worker, 5, 50)
    worker._page[BEGUN], worker._page[RUNS] = 5, 52 << WIDTH_BITS | 3
    cut = worker.ask_to_stop()
    assert cut is not None
    assert (cut.seq, cut.stop) == (5, 55) == (worker._page[STOP_SEQ], worker._page[STOP])
    assert worker.obeys(cut)
    run(worker, 5, 55)
    assert not worker.obeys(cut)


def test_a_worker_that_was_asked_to_stop_is_not_asked_to_go_on(worker: LocalWorker) -> None:
    """It says what it would run before it looks whether it may, and others have that already."""
    send(worker, 5, 50)
    worker._page[BEGUN], worker._page[RUNS] = 5, 52 << WIDTH_BITS | 3
    assert worker.ask_to_stop() is not None
    worker._page[RUNS] = 55 << WIDTH_BITS | 3
    assert worker.ask_to_stop() is not None
    assert worker._page[STOP] == 55


@pytest.mark.parametrize("runs", [NOTHING, 50 << WIDTH_BITS | 1])
def test_a_worker_that_has_gone_on_does_not_obey(worker: LocalWorker, runs: int) -> None:
    send(worker, 5, 50)
    send(worker, 6, 60)
    run(worker, 5, 50)
    cut = worker.ask_to_stop()
    assert cut is not None
    worker._page[BEGUN], worker._page[RUNS] = 6, runs
    assert not worker.obeys(cut)


def test_between_two_packets_nobody_is_asked(worker: LocalWorker) -> None:
    assert worker.ask_to_stop() is None
    send(worker, 5, 50)
    worker._page[BEGUN], worker._page[RUNS] = 5, NOTHING
    assert worker.ask_to_stop() is None


class Told:
    """A child that notes the signals which it is sent."""

    def __init__(self) -> None:
        self.signals: list[int] = []

    def send_signal(self, signum: int) -> None:
        self.signals.append(signum)

    def close(self) -> None:
        pass


def test_the_stack_is_what_was_written_since_it_was_asked_for_without_what_called_the_task(worker: LocalWorker) -> None:
    worker.child = Told()  # type: ignore[assignment]
    assert worker.stack() == ""
    os.pwrite(worker.page_fd, b"of another time", PAGE_SIZE)
    worker.ask_for_stack()
    assert worker.stack() == ""
    at = os.fstat(worker.page_fd).st_size
    task, ours = '  File "task.py", line 3 in task', OWN_FRAME + 'run.py", line 7 in run'
    os.pwrite(worker.page_fd, f"Thread 1:\n{task}\n{ours}\n  more\n\nThread 2:\n{task}\n".encode(), at)
    assert worker.stack() == f"Thread 1:\n{task}\n\nThread 2:\n{task}"


def test_a_stack_is_complete_with_what_called_the_task_of_the_thread_that_comes_last(worker: LocalWorker) -> None:
    worker.child = Told()  # type: ignore[assignment]
    assert not worker.has_told_stack
    worker.ask_for_stack()
    task, ours = '  File "task.py", line 3 in task', OWN_FRAME + 'run.py", line 7 in run'
    for written, complete in [
        ("Current thread 0x", False),
        (f"Thread 1:\n{task}\n{ours}\n", True),
        (f"Thread 1:\n{task}\n{ours}\n\nThread 2:\n{task}\n", False),
        (f"Thread 1:\n{task}\n{ours}\n\nThread 2:\n{task}\n{ours}\n", True),
        (f"Thread 1:\n{task}\n  ...\n", True),  # there are more frames than are told
    ]:
        os.ftruncate(worker.page_fd, PAGE_SIZE)
        os.pwrite(worker.page_fd, written.encode(), PAGE_SIZE)
        assert worker.has_told_stack == complete, written


def test_what_runs_is_told_only_where_the_page_is_of_one_moment(worker: LocalWorker) -> None:
    seq, item, since = worker.runs() or (1, 1, 0.0)
    assert (seq, item) == (0, 0)  # it is starting
    assert 0.0 <= monotonic() - since < DEADLOCK
    worker.ready = True
    assert worker.runs() is None
    run(worker, 5, 50)
    assert worker.runs() is None, "it was answered"
    send(worker, 5, 50)
    worker._page[SINCE] = 2_500_000_000
    assert worker.runs() == (5, 50, 2.5)
    worker._page[RUNS] = NOTHING
    assert worker.runs() is None


def test_a_worker_is_ended_when_its_stack_is_complete_and_no_sooner() -> None:
    expelled = Expelled((5, 50, 2.5))
    assert not expelled.is_due(monotonic() - CUT_PAUSE, told=True)  # it may not have heard what it is asked
    assert not expelled.is_due(monotonic() + 2 * CUT_PAUSE, told=False)
    assert expelled.is_due(monotonic() + 2 * CUT_PAUSE, told=True)


def test_a_worker_that_can_not_tell_its_stack_is_ended_all_the_same() -> None:
    expelled = Expelled((5, 50, 2.5))
    assert not expelled.is_due(monotonic() + CUT_PAUSE, told=False)
    assert expelled.is_due(monotonic() + 1.0, told=False)
    expelled.ended = True
    assert not expelled.is_due(monotonic() + 2.0, told=False)
