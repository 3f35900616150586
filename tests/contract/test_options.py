"""What `Pool.options`, the timeouts and `Future.kill` promise, on every engine and every start method."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import psutil
import pytest

import procflow
from procflow.worker import memory
from tests.contract import functions as f
from tests.contract.conftest import Open, end, join
from tests.support import DEADLOCK, wait_until

LIMIT = 0.2  # seconds: a task that ends takes a fraction, the others do not end


@pytest.fixture
def workers(open_local: Open) -> Iterator[procflow.Pool]:
    """A pool of two worker processes, which import what the tasks need before one of them begins, and has a limit."""
    yield from end(open_local(2, initializer=f.remember))


def has_begun(path: Path) -> None:
    wait_until(lambda: path.exists() and path.stat().st_size, "the beginning of a task")


# -- the view ----


def test_a_view_works_on_its_pool(pool: procflow.Pool) -> None:
    view = pool.options(retries=1)
    assert view.map(f.double, range(100)) == pool.map(f.double, range(100))
    assert view.submit(f.add, 1, y=2).result(DEADLOCK) == 3
    assert view.apply(f.add, (1, 2)) == 3
    assert view.starmap(f.add, [(1, 2), (3, 4)]) == [3, 7]
    assert list(view.imap(f.double, range(100))) == pool.map(f.double, range(100))
    assert sorted(view.imap_unordered(f.double, range(100))) == pool.map(f.double, range(100))


def test_closing_a_view_closes_its_pool(pool: procflow.Pool) -> None:
    pool.options(retries=1).close()
    with pytest.raises(procflow.PoolClosed):
        pool.submit(f.double, 1)


def test_a_view_may_outlive_the_name_of_its_pool(open_pool: Open) -> None:
    view = open_pool(1).options(retries=1)
    assert view.map(f.double, [1, 2]) == [2, 4]
    view.terminate()
    view.join()


def test_options_of_a_view_replace_those_of_the_other(pool: procflow.Pool, tmp_path: Path) -> None:
    other = pool.options(retries=3).options(backoff=0.0)
    with pytest.raises(ValueError, match="1"):
        other.submit(f.fails_until, tmp_path / "runs", 2).result(DEADLOCK)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"timeout": 0}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"timeout": "1"}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"retries": -1}, ValueError),
        ({"retries": 1.5}, ValueError),
        ({"backoff": -0.1}, ValueError),
        ({"buffersize": 0}, ValueError),
        ({"retry_on": 3}, TypeError),
        ({"retry_on": (ValueError, "x")}, TypeError),
        ({"retry_on": int}, TypeError),
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any], error: type[Exception]) -> None:
    with procflow.Pool(1, engine="serial") as pool, pytest.raises(error, match=next(iter(wrong))):
        pool.options(**wrong)


def test_the_serial_engine_says_that_it_can_end_no_task() -> None:
    with procflow.Pool(1, engine="serial") as pool, pytest.raises(ValueError, match="engine='local'"):
        pool.options(timeout=1)


def test_a_view_has_a_buffersize_of_its_own(pool: procflow.Pool) -> None:
    read = []

    def items() -> Any:
        for number in range(1000):
            read.append(number)
            yield number

    results = pool.options(buffersize=5).imap(f.double, items())
    assert next(results) == 0
    assert len(read) <= 6
    results.close()


# -- timeout= of a task ----


def test_a_task_that_takes_too_long_fails_and_no_other(workers: procflow.Pool) -> None:
    view = workers.options(timeout=LIMIT)
    slow = view.submit(f.spin)
    assert view.map(f.double, range(100)) == [2 * n for n in range(100)]
    error = slow.exception(DEADLOCK)
    assert isinstance(error, procflow.TaskTimeout)
    assert (error.task, error.timeout) == (0, LIMIT)
    assert "ran for longer than 0.2 s" in str(error)
    assert workers.map(f.double, range(100)) == [2 * n for n in range(100)]


def test_the_error_tells_where_the_task_was(workers: procflow.Pool) -> None:
    error = workers.options(timeout=LIMIT).submit(f.spin).exception(DEADLOCK)
    assert isinstance(error, procflow.TaskTimeout)
    assert "functions.py" in error.stack
    assert " in spin" in error.stack
    assert "procflow/worker" not in error.stack
    assert error.stack in str(error)


def test_a_c_function_that_holds_the_gil_is_ended_too(workers: procflow.Pool) -> None:
    error = workers.options(timeout=LIMIT).submit(f.hold_the_gil).exception(DEADLOCK)
    assert isinstance(error, procflow.TaskTimeout)
    assert " in hold_the_gil" in error.stack


def test_each_item_of_a_map_has_the_time(workers: procflow.Pool) -> None:
    """All of them together take longer."""
    assert workers.options(timeout=0.5).map(f.sleep, [0.02] * 60) == [0.02] * 60


def test_a_map_fails_with_the_item_that_takes_too_long(workers: procflow.Pool) -> None:
    durations = [0.0] * 40
    durations[17] = 1000.0
    with pytest.raises(procflow.TaskTimeout) as caught:
        workers.options(timeout=LIMIT).map(f.sleep, durations)
    assert caught.value.task == 17


def test_a_stream_goes_on_behind_an_item_that_takes_too_long(workers: procflow.Pool) -> None:
    durations = [0.0] * 20
    durations[7] = 1000.0
    results = workers.options(timeout=LIMIT).imap(f.sleep, iter(durations))
    got: list[object] = []
    for _ in durations:
        try:
            got.append(next(results))
        except procflow.TaskTimeout as error:
            got.append(error.task)
    assert got == [0.0] * 7 + [7] + [0.0] * 12


def test_time_that_a_task_waits_for_a_worker_does_not_count(workers: procflow.Pool) -> None:
    view = workers.options(timeout=0.5)
    futures = [view.submit(f.sleep, 0.1) for _ in range(20)]  # the last ones wait for 0.9 s
    assert [future.result(DEADLOCK) for future in futures] == [0.1] * 20


def test_calls_without_a_limit_go_on_beside_those_with_one(workers: procflow.Pool, tmp_path: Path) -> None:
    free = workers.submit(f.tell_and_wait_for, tmp_path / "begun", tmp_path / "gate")
    wait_until((tmp_path / "begun").exists, "the beginning of a task")
    assert isinstance(workers.options(timeout=LIMIT).submit(f.spin).exception(DEADLOCK), procflow.TaskTimeout)
    (tmp_path / "gate").touch()
    assert free.result(DEADLOCK) == tmp_path / "gate"


def test_what_the_task_has_started_is_ended_with_it(workers: procflow.Pool, tmp_path: Path) -> None:
    error = workers.options(timeout=0.5).submit(f.start_a_child_and_spin, tmp_path / "child").exception(DEADLOCK)
    assert isinstance(error, procflow.TaskTimeout)
    child = int((tmp_path / "child").read_text())
    wait_until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie", "the child's end")


def test_a_task_that_ignores_sigterm_is_ended(workers: procflow.Pool, tmp_path: Path) -> None:
    future = workers.options(timeout=0.5).submit(f.ignore_sigterm_and_spin, tmp_path / "ignored")
    assert isinstance(future.exception(DEADLOCK), procflow.TaskTimeout)


@pytest.mark.slow
def test_many_tasks_that_take_too_long_cost_nobody_else(workers: procflow.Pool) -> None:
    view = workers.options(timeout=LIMIT)
    futures = [view.submit(f.spin) if n % 5 == 0 else view.submit(f.double, n) for n in range(50)]
    for number, future in enumerate(futures):
        if number % 5 == 0:
            assert isinstance(future.exception(DEADLOCK), procflow.TaskTimeout)
        else:
            assert future.result(DEADLOCK) == 2 * number


# -- retries= ----


def test_a_task_begins_again_until_it_succeeds(pool: procflow.Pool, tmp_path: Path) -> None:
    view = pool.options(retries=5)
    assert view.submit(f.fails_until, tmp_path / "one", 3).result(DEADLOCK) == 3
    paths = [(tmp_path / str(n), 1 + n % 3) for n in range(12)]
    assert view.starmap(f.fails_until, paths) == [runs for _, runs in paths]
    paths = [(tmp_path / f"stream-{n}", 1 + n % 3) for n in range(12)]
    assert [runs for _, runs in paths] == [view.apply(f.fails_until, path) for path in paths]


def test_streams_keep_their_order_over_retries(pool: procflow.Pool, tmp_path: Path) -> None:
    fails = [tmp_path / str(n) for n in range(30)]
    results = list(pool.options(retries=1).imap(f.fails_once_and_doubles, enumerate(fails)))
    assert results == [2 * n for n in range(30)]


def test_chunks_begin_again_from_the_item_that_failed(pool: procflow.Pool, tmp_path: Path) -> None:
    fails = [tmp_path / str(n) for n in range(9)]
    results = pool.options(retries=1).map(f.fails_once_and_doubles, list(enumerate(fails)), chunksize=3)
    assert results == [2 * n for n in range(9)]
    assert {path.stat().st_size for path in fails} == {2}


def test_the_last_failure_is_the_one_that_counts(pool: procflow.Pool, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3") as caught:
        pool.options(retries=2).submit(f.fails_until, tmp_path / "runs", 100).result(DEADLOCK)
    assert caught.value.args == (3,)
    assert "attempt 3 of 3" in caught.value.__notes__[0]
    assert (tmp_path / "runs").stat().st_size == 3


def test_only_chosen_exceptions_begin_again(pool: procflow.Pool, tmp_path: Path) -> None:
    for kinds in (KeyError, (KeyError, OSError)):
        with pytest.raises(ValueError, match="1"):
            pool.options(retries=2, retry_on=kinds).submit(f.fails_until, tmp_path / repr(kinds), 9).result(DEADLOCK)
    assert pool.options(retries=2, retry_on=(KeyError, ValueError)).apply(f.fails_until, (tmp_path / "both", 3)) == 3


def test_the_time_between_attempts_grows(pool: procflow.Pool, tmp_path: Path) -> None:
    began = monotonic()
    view = pool.options(retries=3, backoff=0.05)
    assert view.submit(f.fails_until, tmp_path / "runs", 4).result(DEADLOCK) == 4
    assert monotonic() - began >= 0.05 + 0.1 + 0.2


def test_others_run_while_a_task_waits_for_its_next_attempt(elsewhere: procflow.Pool, tmp_path: Path) -> None:
    waits = elsewhere.options(retries=1, backoff=1000.0).submit(f.fails_until, tmp_path / "runs", 2)
    has_begun(tmp_path / "runs")
    assert elsewhere.map(f.double, range(100)) == [2 * n for n in range(100)]
    assert elsewhere.submit(f.double, 4).result(DEADLOCK) == 8
    wait_until(waits.cancel, "the end of the first attempt")
    with pytest.raises(procflow.CancelledError, match="after 1 of its attempts had failed"):
        waits.result(DEADLOCK)


def test_a_pool_that_is_closed_finishes_its_retries(open_pool: Open, tmp_path: Path) -> None:
    pool = open_pool(1)
    future = pool.options(retries=3, backoff=0.05).submit(f.fails_until, tmp_path / "runs", 3)
    pool.close()
    pool.join()
    assert future.result(0) == 3


def test_a_pool_that_is_terminated_does_not_begin_again(open_local: Open, tmp_path: Path) -> None:
    pool = open_local(1)
    future = pool.options(retries=9, backoff=1000.0).submit(f.fails_until, tmp_path / "runs", 3)
    has_begun(tmp_path / "runs")
    pool.terminate()
    pool.join()
    assert isinstance(future.exception(DEADLOCK), procflow.PoolClosed)


def test_a_task_outlives_its_workers(workers: procflow.Pool, tmp_path: Path) -> None:
    view = workers.options(retries=3)
    assert view.submit(f.dies_until, tmp_path / "one", 3).result(DEADLOCK) == 3
    paths = [(tmp_path / str(n), 1 + n % 2) for n in range(8)]
    assert view.starmap(f.dies_until, paths) == [runs for _, runs in paths]


def test_a_task_that_kills_its_worker_every_time_is_quarantined(workers: procflow.Pool, tmp_path: Path) -> None:
    view = workers.options(retries=2)
    others = [view.submit(f.double, n) for n in range(50)]
    killer = view.submit(f.dies_until, tmp_path / "runs", 100)
    others += [view.submit(f.double, n) for n in range(50)]
    assert isinstance(killer.exception(DEADLOCK), procflow.WorkerDied)
    assert (tmp_path / "runs").stat().st_size == 3
    assert [other.result(DEADLOCK) for other in others] == [2 * n for n in range(50)] * 2


def test_a_death_is_final_if_it_was_not_chosen(workers: procflow.Pool, tmp_path: Path) -> None:
    future = workers.options(retries=3, retry_on=ValueError).submit(f.dies_until, tmp_path / "runs", 2)
    assert isinstance(future.exception(DEADLOCK), procflow.WorkerDied)
    assert workers.options(retries=3, retry_on=procflow.WorkerDied).apply(f.dies_until, (tmp_path / "other", 2)) == 2


def test_a_task_that_took_too_long_begins_again(workers: procflow.Pool, tmp_path: Path) -> None:
    view = workers.options(timeout=LIMIT, retries=2)
    assert view.submit(f.hangs_until, tmp_path / "runs", 3).result(DEADLOCK) == 3
    only_values = workers.options(timeout=LIMIT, retries=2, retry_on=ValueError)
    assert isinstance(only_values.submit(f.hangs_until, tmp_path / "x", 3).exception(DEADLOCK), procflow.TaskTimeout)


# -- timeout= of a whole call ----


def test_a_map_that_is_done_in_time_is_as_any_other(pool: procflow.Pool) -> None:
    assert pool.map(f.double, range(10), timeout=DEADLOCK) == [2 * n for n in range(10)]
    assert pool.starmap(f.add, [(1, 2)], timeout=DEADLOCK) == [3]
    assert list(pool.imap(f.double, range(10), timeout=DEADLOCK)) == [2 * n for n in range(10)]
    assert sorted(pool.imap_unordered(f.double, range(10), timeout=DEADLOCK)) == [2 * n for n in range(10)]


def test_a_map_that_is_not_done_in_time_is_ended(workers: procflow.Pool) -> None:
    with pytest.raises(procflow.TimeoutError, match="in the time"):
        workers.map(f.spin, range(20), timeout=LIMIT)
    assert workers.map(f.double, range(10)) == [2 * n for n in range(10)]


def test_a_stream_that_is_not_done_in_time_is_ended(workers: procflow.Pool) -> None:
    results = workers.imap(f.sleep, [0.0, 0.0] + [1000.0] * 10, timeout=LIMIT)
    with pytest.raises(procflow.TimeoutError, match="within"):
        list(results)
    with pytest.raises(StopIteration):
        next(results)
    assert workers.map(f.double, range(10)) == [2 * n for n in range(10)]


def test_a_map_in_time_may_show_its_progress(workers: procflow.Pool) -> None:
    reports: list[procflow.Report] = []
    with pytest.raises(procflow.TimeoutError):
        workers.map(f.spin, range(4), timeout=LIMIT, progress=reports.append)
    assert reports[-1].final


# -- kill() ----


def test_a_task_that_runs_can_be_killed(workers: procflow.Pool, tmp_path: Path) -> None:
    future = workers.submit(f.tell_and_wait_for, tmp_path / "begun", tmp_path / "gate")
    wait_until((tmp_path / "begun").exists, "the beginning of a task")
    assert future.kill()
    assert future.cancelled()
    with pytest.raises(procflow.TaskKilled) as caught:
        future.result(DEADLOCK)
    wait_until(lambda: not psutil.pid_exists(caught.value.pid), "the burial of its worker")
    assert future.kill()
    assert workers.map(f.double, range(10)) == [2 * n for n in range(10)]


def test_a_task_that_waits_is_cancelled_by_kill(workers: procflow.Pool, tmp_path: Path) -> None:
    running = [workers.submit(f.tell_and_wait_for, tmp_path / str(n), tmp_path / "gate") for n in range(2)]
    for n in range(2):
        wait_until((tmp_path / str(n)).exists, "the beginning of a task")
    waits = workers.submit(f.double, 1)
    assert waits.kill()
    with pytest.raises(procflow.CancelledError, match="never ran"):
        waits.result(DEADLOCK)
    (tmp_path / "gate").touch()
    assert [future.result(DEADLOCK) for future in running] == [tmp_path / "gate"] * 2


def test_a_task_that_is_done_can_not_be_killed(pool: procflow.Pool) -> None:
    future = pool.submit(f.double, 4)
    assert future.result(DEADLOCK) == 8
    assert not future.kill()
    assert future.result(DEADLOCK) == 8


def test_kill_concerns_no_neighbour_in_the_same_packet(workers: procflow.Pool, tmp_path: Path) -> None:
    for round_ in range(5):
        others = [workers.submit(f.double, n) for n in range(30)]
        begun = tmp_path / f"begun-{round_}"
        victim = workers.submit(f.tell_and_wait_for, begun, tmp_path / "never")
        others += [workers.submit(f.double, n) for n in range(30)]
        wait_until(begun.exists, "the beginning of a task")
        assert victim.kill()
        assert [other.result(DEADLOCK) for other in others] == [2 * n for n in range(30)] * 2


def test_a_map_can_be_killed(workers: procflow.Pool) -> None:
    future = workers.map_async(f.spin, range(10))
    wait_until(future.running, "the beginning of a map")
    assert future.kill()
    with pytest.raises(procflow.CancelledError, match="some of its tasks may have run"):
        future.result(DEADLOCK)
    assert workers.map(f.double, range(10)) == [2 * n for n in range(10)]


def test_a_killed_task_does_not_begin_again(workers: procflow.Pool, tmp_path: Path) -> None:
    future = workers.options(retries=5).submit(f.hangs_until, tmp_path / "runs", 100)
    has_begun(tmp_path / "runs")
    assert future.kill()
    assert workers.map(f.double, range(10)) == [2 * n for n in range(10)]
    assert (tmp_path / "runs").stat().st_size == 1


# -- max_memory_per_worker= ----

MIB = 2**20


def test_a_worker_that_keeps_too_much_memory_is_replaced(open_local: Open) -> None:
    with open_local(1, max_memory_per_worker=150 * MIB) as pool:
        kept: dict[int, int] = {}

        def three_workers() -> bool:
            pid, mebibytes = pool.apply(f.keep, (30,))
            kept[pid] = mebibytes
            return len(kept) >= 3

        wait_until(three_workers, "the third worker")
    assert max(kept.values()) <= 1000  # it is not measured after each task, if that takes long


@pytest.mark.slow
def test_nothing_is_lost_when_workers_are_replaced_for_their_memory(open_local: Open) -> None:
    with open_local(2, max_memory_per_worker=1) as pool:  # each is over that, after every packet
        assert pool.map(f.double, range(60)) == [2 * n for n in range(60)]
        futures = [pool.submit(f.double, n) for n in range(8)]
        assert [future.result(DEADLOCK) for future in futures] == [2 * n for n in range(8)]
        assert list(pool.imap(f.double, iter(range(8)), chunksize=2)) == [2 * n for n in range(8)]


@pytest.mark.slow
def test_memory_that_a_task_gives_back_does_not_count(open_local: Open) -> None:
    with open_local(1, max_memory_per_worker=150 * MIB) as pool:
        pids = {pool.apply(f.use, (300,)) for _ in range(4)}
    assert len(pids) == 1


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "1G"])
def test_a_wrong_limit_of_memory_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="max_memory_per_worker"):
        procflow.Pool(1, max_memory_per_worker=wrong)


def test_the_serial_engine_has_no_worker_to_replace() -> None:
    with procflow.Pool(engine="serial", max_memory_per_worker=1) as pool:
        assert pool.map(f.double, range(3)) == [0, 2, 4]


def test_where_memory_can_not_be_measured_the_pool_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CAN_MEASURE", False)
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(ModuleNotFoundError, match=r"procflow\[memory\]"):
        procflow.Pool(1, max_memory_per_worker=MIB)


# -- start_timeout= ----


def test_an_initializer_that_hangs_is_told_of(open_local: Open) -> None:
    with open_local(1, f.spin, start_timeout=LIMIT) as pool:
        error = pool.submit(f.double, 1).exception(DEADLOCK)
    assert isinstance(error, procflow.InitializerError)
    assert error.attempts == 3
    assert "was not ready within 0.2 s" in str(error)


def test_an_initializer_that_hangs_says_where() -> None:
    with procflow.get_context("fork").Pool(1, f.spin, start_timeout=1.0) as pool:  # by fork: it is there long before
        error = pool.submit(f.double, 1).exception(DEADLOCK)
    assert "functions.py" in str(error)
    assert " in spin" in str(error)


def test_an_initializer_that_hung_once_costs_one_worker(tmp_path: Path) -> None:
    with procflow.get_context("fork").Pool(1, f.hangs_until, (tmp_path / "runs", 2), start_timeout=2.0) as pool:
        assert pool.submit(f.double, 4).result(DEADLOCK) == 8
    assert (tmp_path / "runs").stat().st_size == 2


def test_a_pool_ends_though_its_initializer_hangs(open_local: Open) -> None:
    pool = open_local(1, f.spin, start_timeout=LIMIT)
    pool.close()
    join(pool)


@pytest.mark.parametrize("wrong", [0, -1, "1", float("nan")])
def test_a_wrong_start_timeout_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="start_timeout"):
        procflow.Pool(1, start_timeout=wrong)


def test_a_start_may_take_as_long_as_it_likes_where_there_is_no_limit(open_pool: Open) -> None:
    with open_pool(1, f.sleep, (0.3,), start_timeout=None) as pool:
        assert pool.submit(f.double, 4).result(DEADLOCK) == 8


# -- what once went wrong ----


@pytest.mark.parametrize("options", [{"timeout": float("inf")}, {"timeout": 1e7}, {"retries": 1, "backoff": 1e7}])
def test_times_longer_than_any_timer_are_no_trouble(workers: procflow.Pool, options: Any, tmp_path: Path) -> None:
    view = workers.options(**options)
    assert view.submit(f.double, 4).result(DEADLOCK) == 8
    waits = view.submit(f.fails_until, tmp_path / "runs", 2)
    has_begun(tmp_path / "runs")
    assert workers.map(f.double, range(100)) == [2 * n for n in range(100)]
    if "retries" in options:
        wait_until(waits.cancel, "the end of the first attempt")
    assert view.map(f.double, range(100)) == [2 * n for n in range(100)]


def test_an_item_whose_unpickling_hangs_takes_too_long_alone(workers: procflow.Pool) -> None:
    items: list[Any] = [0, 1, f.HangsWhenUnpickled(), 3, 4, 5]
    results = workers.options(timeout=LIMIT).imap(f.is_int, items)
    found: list[Any] = []
    for _ in items:
        try:
            found.append(next(results))
        except procflow.TaskTimeout as error:
            found.append(error.task)
    assert found == [True, True, 2, True, True, True]
    with pytest.raises(procflow.TaskTimeout):
        workers.options(timeout=LIMIT).map(f.is_int, items * 3)
    assert isinstance(workers.options(timeout=LIMIT).submit(f.is_int, items).exception(DEADLOCK), procflow.TaskTimeout)


def test_a_map_whose_unpickling_hangs_ends_with_its_time(workers: procflow.Pool) -> None:
    for _ in range(2):
        with pytest.raises(procflow.TimeoutError):
            workers.map(f.is_int, [f.HangsWhenUnpickled()] * 4, timeout=LIMIT)
    assert workers.map(f.double, range(10)) == [2 * n for n in range(10)]


def test_each_item_of_a_chunk_has_attempts_of_its_own(workers: procflow.Pool, tmp_path: Path) -> None:
    """Whether it raised, or its worker died, or another item of the chunk did."""
    bad = tmp_path / "runs"
    with pytest.raises((ValueError, procflow.WorkerDied)):
        workers.options(retries=2).map(f.raises_then_dies, [(0, None), (1, bad), (2, None)], chunksize=3)
    assert bad.stat().st_size == 3
    items = [(n, tmp_path / str(n) if n % 2 else None) for n in range(6)]
    results = workers.options(retries=6).map(f.raises_once_then_dies_once, items, chunksize=3)
    assert results == list(range(6))


def test_a_pool_with_retries_inside_a_task_with_retries_counts_its_own(pool: procflow.Pool, tmp_path: Path) -> None:
    assert pool.options(retries=2).apply(f.retries_inside, (tmp_path / "outer", tmp_path / "inner")) == 3


def test_sys_exit_is_a_death_that_may_be_chosen(pool: procflow.Pool, tmp_path: Path) -> None:
    assert pool.options(retries=2).apply(f.exits_until, (tmp_path / "one", 3)) == 3
    with pytest.raises(procflow.WorkerDied):
        pool.options(retries=2, retry_on=ValueError).apply(f.exits_until, (tmp_path / "two", 2))


def test_kill_may_be_called_by_a_callback_of_the_same_call(workers: procflow.Pool) -> None:
    futures: list[procflow.Future[Any]] = []
    failed = threading.Event()
    killed: list[bool] = []

    def kill_all(_: BaseException) -> None:
        killed.extend(future.kill() for future in futures)
        failed.set()

    futures.append(workers.apply_async(f.spin))
    futures.append(workers.apply_async(f.fail, (1,), error_callback=kill_all))
    assert failed.wait(DEADLOCK)
    assert killed == [True, False]


def test_a_map_that_many_threads_kill_fails_once(workers: procflow.Pool) -> None:
    for _ in range(20):
        told: list[BaseException] = []
        future = workers.map_async(f.spin, range(4), error_callback=told.append)
        threads = [threading.Thread(target=future.kill) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLOCK)
        with pytest.raises(procflow.CancelledError):
            future.result(DEADLOCK)
        assert len(told) == 1


def test_nothing_of_a_killed_map_is_kept(workers: procflow.Pool) -> None:
    for _ in range(5):
        with pytest.raises(procflow.TimeoutError):
            workers.map(lambda _: f.spin(), range(4), timeout=0.02)
    assert workers.map(f.double, range(10)) == [2 * n for n in range(10)]
    core = workers._core
    wait_until(lambda: set(core.scheduler.jobs) == set(core.jobs), "the end of the killed maps' items")
    assert core.engine._functions == {}


def test_options_that_differ_in_each_call_do_not_add_up(workers: procflow.Pool) -> None:
    futures = [workers.options(timeout=100 + n / 10).submit(f.double, n) for n in range(300)]
    assert [future.result(DEADLOCK) for future in futures] == [2 * n for n in range(300)]
    assert len(workers._core.calls) <= 16
    wait_until(lambda: len(workers._core.jobs) <= 17, "the end of the calls' jobs")


def test_a_stream_counts_items_that_took_too_long(workers: procflow.Pool) -> None:
    reports: list[procflow.Report] = []
    results = workers.options(timeout=LIMIT).imap(f.sleep, [0, 1000.0, 0], progress=reports.append)
    for _ in range(3):
        try:
            next(results)
        except procflow.TaskTimeout:
            pass
    with pytest.raises(StopIteration):
        next(results)
    assert reports[-1].done == 3


def test_a_task_that_waits_for_its_next_attempt_does_not_run(elsewhere: procflow.Pool, tmp_path: Path) -> None:
    future = elsewhere.options(retries=1, backoff=1000.0).submit(f.fails_until, tmp_path / "runs", 2)
    has_begun(tmp_path / "runs")
    wait_until(lambda: not future.running(), "the end of the first attempt")
    assert not future.done()
    assert future.cancel()


def test_a_timeout_of_a_task_has_no_error_number() -> None:
    error = procflow.TaskTimeout(2, 0.5, 42, "Thread 1")
    assert (error.errno, error.filename) == (None, None)
    assert error.args == (2, 0.5, 42, "Thread 1")


@pytest.mark.parametrize("wrong", ["5", -1, float("nan")])
def test_a_wrong_time_for_a_call_is_refused_before_it_is_accepted(pool: procflow.Pool, wrong: Any) -> None:
    for call in (pool.map, pool.starmap, pool.imap, pool.imap_unordered):
        with pytest.raises(ValueError, match="timeout must be"):
            call(f.double, [1], timeout=wrong)
    assert "0 tasks" in repr(pool)
