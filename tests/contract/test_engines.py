"""What a pool promises, on every engine and every start method."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

import procflow
from procflow.dispatch import jobs
from procflow.engines import local
from tests.contract import functions as f
from tests.contract.conftest import Open, end, join
from tests.support import DEADLOCK, wait_until

DEATHS = ["os._exit", "SIGKILL", "segfault", "sys.exit"]

# -- results and their order ----


def test_every_method_gives_its_results_in_order(pool: procflow.Pool) -> None:
    pairs = [(1, 2), (3, 4)]
    assert pool.apply(f.add, (1,), {"y": 2}) == 3
    assert pool.apply_async(f.add, (1, 2)).get(DEADLOCK) == 3
    assert pool.submit(f.add, 1, y=2).result(DEADLOCK) == 3
    assert pool.map(f.double, range(100)) == list(range(0, 200, 2))
    assert pool.map_async(f.double, range(100), 7).get(DEADLOCK) == list(range(0, 200, 2))
    assert list(pool.imap(f.double, range(100))) == list(range(0, 200, 2))
    assert sorted(pool.imap_unordered(f.double, range(100), 3)) == list(range(0, 200, 2))
    assert pool.starmap(f.add, pairs) == [3, 7]
    assert pool.starmap_async(f.add, pairs, 1).get(DEADLOCK) == [3, 7]


def test_empty_input_gives_empty_output(pool: procflow.Pool) -> None:
    assert pool.map(f.double, []) == pool.starmap(f.add, []) == list(pool.imap(f.double, [])) == []
    assert pool.map_async(f.double, iter(())).get(DEADLOCK) == list(pool.imap_unordered(f.double, iter(()))) == []


def test_a_chunksize_below_one_is_refused(pool: procflow.Pool) -> None:
    for method in (pool.map, pool.imap, pool.imap_unordered, pool.map_async):
        with pytest.raises(ValueError, match="Chunksize must be 1"):
            method(f.double, [1], 0)
        with pytest.raises(TypeError, match="float"):
            method(f.double, [1], 1.5)


def test_an_exception_that_is_returned_is_a_value(pool: procflow.Pool) -> None:
    assert isinstance(pool.submit(f.return_exception).result(DEADLOCK), ValueError)
    assert all(isinstance(value, ValueError) for value in pool.map(f.return_exception, range(3)))


# -- failures ----


def test_a_failure_brings_the_workers_traceback(elsewhere: procflow.Pool) -> None:
    error = elsewhere.submit(f.fail, 7).exception(DEADLOCK)
    assert isinstance(error, ValueError)
    assert error.args == (7,)
    assert isinstance(error.__cause__, procflow.RemoteTraceback)
    assert "in fail" in str(error.__cause__)


def test_map_raises_what_the_lowest_failing_item_raised(pool: procflow.Pool) -> None:
    for chunksize in (None, 1, 3):
        with pytest.raises(ValueError, match=r"^11$"):
            pool.map(f.odd_fails, [0, 2, 4, 11, 6, 13, 15], chunksize)


def test_imap_goes_on_after_a_failure(pool: procflow.Pool) -> None:
    results = pool.imap(f.odd_fails, [0, 1, 2])
    assert next(results) == 0
    with pytest.raises(ValueError, match=r"^1$"):
        next(results)
    assert list(results) == [2]


def test_a_future_tells_how_it_ended(pool: procflow.Pool) -> None:
    good, bad = pool.submit(f.double, 1), pool.submit(f.fail, 1)
    good.wait(DEADLOCK)
    bad.wait(DEADLOCK)
    assert good.done()
    assert good.ready()
    assert good.successful()
    assert not bad.successful()
    assert good.exception() is None
    assert not good.running()


# -- callbacks ----


def test_a_callback_has_returned_before_the_result_is_ready(elsewhere: procflow.Pool) -> None:
    called, gate = threading.Event(), threading.Event()

    def callback(_: int) -> None:
        called.set()
        gate.wait(DEADLOCK)

    future = elsewhere.apply_async(f.double, (4,), callback=callback)
    assert called.wait(DEADLOCK)
    assert not future.ready()
    gate.set()
    assert future.get(DEADLOCK) == 8


def test_an_error_callback_gets_the_exception_and_the_callback_is_not_called(pool: procflow.Pool) -> None:
    errors: list[BaseException] = []
    future = pool.map_async(f.fail, [3], callback=pytest.fail, error_callback=errors.append)
    with pytest.raises(ValueError, match="3"):
        future.get(DEADLOCK)
    assert [error.args for error in errors] == [(3,)]


def test_a_map_has_one_callback_for_all(pool: procflow.Pool) -> None:
    values: list[list[int]] = []
    pool.map_async(f.double, [1, 2, 3], callback=values.append).wait(DEADLOCK)
    pool.starmap_async(f.add, [(1, 1)], callback=values.append).wait(DEADLOCK)
    assert values == [[2, 4, 6], [2]]


@pytest.mark.filterwarnings("ignore")
def test_a_callback_that_raises_does_not_stop_the_pool(pool: procflow.Pool) -> None:
    def broken(_: object) -> None:
        raise LookupError

    assert pool.apply_async(f.double, (1,), callback=broken).get(DEADLOCK) == 2
    assert pool.apply(f.double, (2,)) == 4


def test_a_done_callback_gets_the_future(pool: procflow.Pool) -> None:
    done: list[object] = []
    future = pool.submit(f.double, 1)
    future.add_done_callback(done.append)
    future.result(DEADLOCK)
    wait_until(lambda: bool(done), "the callback")
    assert done == [future]


def test_a_callback_may_wait_for_another_result(pool: procflow.Pool) -> None:
    values: list[int] = []
    pool.apply_async(f.double, (1,), callback=lambda x: values.append(pool.apply(f.double, (x,)))).wait(DEADLOCK)
    assert values == [4]


# -- workers ----


def test_the_initializer_ran_before_the_first_task(open_pool: Open) -> None:
    with open_pool(2, f.remember, (1, "two")) as pool:
        assert pool.map(f.recall, range(4), 1) == [[1, "two"]] * 4


def test_each_worker_runs_the_initializer_and_so_does_its_replacement(open_local: Open, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with open_local(1, f.log_start, (str(log),), 1) as pool:
        pids = [pool.apply(f.pid) for _ in range(3)]
    assert len(set(pids)) == 3
    assert log.read_text().split()[:3] == [str(pid) for pid in pids]


@pytest.mark.parametrize("initializer", [f.fail_to_initialize, f.leave_at_once])
def test_a_pool_whose_initializer_fails_says_so_and_ends(open_local: Open, initializer: Callable[[], None]) -> None:
    with open_local(2, initializer) as pool:
        for _ in range(2):
            error = pool.submit(f.double, 1).exception(DEADLOCK)
            assert isinstance(error, procflow.InitializerError)
        with pytest.raises(procflow.InitializerError):
            pool.map(f.double, range(10))
    assert ("raised" in str(error) and "no such luck" in str(error)) or ("code 7 before it was ready" in str(error))


def test_a_serial_pool_whose_initializer_fails_says_so() -> None:
    with procflow.Pool(1, f.fail_to_initialize, engine="serial") as pool:
        error = pool.submit(f.double, 1).exception(DEADLOCK)
    assert isinstance(error, procflow.InitializerError)
    assert "Its initializer raised:" in str(error)
    assert "no such luck" in str(error)


@pytest.mark.parametrize(("limit", "calls", "least"), [(1, 4, 4), (2, 6, 3)])
def test_a_worker_is_replaced_after_its_tasks(open_local: Open, limit: int, calls: int, least: int) -> None:
    with open_local(1, maxtasksperchild=limit) as pool:
        pids = [pool.apply(f.pid) for _ in range(calls)]
    assert [len(list(group)) for _, group in itertools.groupby(pids)] == [limit] * least


def test_a_map_is_whole_though_its_workers_are_replaced(open_local: Open) -> None:
    with open_local(2, maxtasksperchild=3) as pool:
        assert pool.map(f.double, range(30)) == list(range(0, 60, 2))
        assert list(pool.imap(f.double, range(20), 2)) == list(range(0, 40, 2))


# -- the end ----


def test_a_closed_pool_refuses_work(pool: procflow.Pool) -> None:
    pool.close()
    for call in (pool.submit, pool.apply_async, pool.apply):
        with pytest.raises(procflow.PoolClosed):
            call(f.pid)
    for method in (pool.map, pool.map_async, pool.imap, pool.imap_unordered, pool.starmap):
        with pytest.raises(ValueError, match="Pool not running"):
            method(f.double, [1])


def test_a_closed_pool_does_what_it_has_accepted(pool: procflow.Pool) -> None:
    future = pool.map_async(f.double, range(50), 1)
    pool.close()
    join(pool)
    assert future.get(0) == list(range(0, 100, 2))


def test_join_before_close_is_refused(pool: procflow.Pool) -> None:
    with pytest.raises(ValueError, match="still running"):
        pool.join()


def test_terminate_fails_what_is_not_done(workers: procflow.Pool, tmp_path: Path) -> None:
    held = [workers.submit(f.wait_for, str(tmp_path / "never")) for _ in range(6)]
    workers.terminate()
    join(workers)
    assert {type(future.exception(DEADLOCK)) for future in held} == {procflow.PoolClosed}


def test_terminate_ends_a_map_and_an_imap(workers: procflow.Pool, tmp_path: Path) -> None:
    never = str(tmp_path / "never")
    future, results = workers.map_async(f.wait_for, [never] * 5), workers.imap(f.wait_for, [never] * 5)
    workers.terminate()
    with pytest.raises(procflow.PoolClosed):
        future.get(DEADLOCK)
    with pytest.raises(procflow.PoolClosed):
        results.next(DEADLOCK)


def test_a_with_block_waits_for_what_was_accepted(open_pool: Open) -> None:
    with open_pool(2) as pool:
        future = pool.map_async(f.double, range(50))
    assert future.get(0) == list(range(0, 100, 2))


def test_a_with_block_that_raises_ends_the_work(open_local: Open, tmp_path: Path) -> None:
    def leave() -> None:
        with open_local(2) as pool:
            held.append(pool.submit(f.wait_for, str(tmp_path / "never")))
            raise LookupError

    held: list[procflow.Future[str]] = []
    with pytest.raises(LookupError):
        leave()
    assert isinstance(held[0].exception(DEADLOCK), procflow.PoolClosed)


def test_close_and_terminate_may_be_called_again(pool: procflow.Pool) -> None:
    for act in (pool.close, pool.close, pool.terminate, pool.terminate, pool.close):
        act()
    join(pool)
    join(pool)


class Ending:
    """Ends the pool while it is being pickled."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        self.act()
        return int, ()


@pytest.mark.parametrize("act", ["close", "terminate"])
def test_a_call_whose_pickling_ends_the_pool_is_refused_or_resolved(elsewhere: procflow.Pool, act: str) -> None:
    elsewhere.apply(f.pid)
    try:
        future = elsewhere.submit(f.double, Ending(getattr(elsewhere, act)))  # type: ignore[arg-type]
    except procflow.PoolClosed:
        return
    future.wait(DEADLOCK)
    assert future.done()


def test_a_pool_that_is_closed_while_a_worker_starts_ends(open_local: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def closing(launch: Callable[..., Any]) -> Callable[..., Any]:
        def close_and_launch(*args: Any, **kwargs: Any) -> Any:
            pool.close()
            return launch(*args, **kwargs)

        return close_and_launch

    for pool in end(open_local(1)):
        pool.apply(f.pid)
        monkeypatch.setattr(local, "launch", closing(local.launch))
        monkeypatch.setattr(local, "launch_fork", closing(local.launch_fork))
        assert isinstance(pool.submit(f.die, "SIGKILL").exception(DEADLOCK), procflow.WorkerDied)
        wait_until(lambda core=pool._core: core.closed, "the start of a replacement")  # type: ignore[misc]
        join(pool)


# -- waiting ----


def test_a_result_that_is_late_is_a_timeout(elsewhere: procflow.Pool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    future, results = elsewhere.submit(f.wait_for, str(gate)), elsewhere.imap(f.wait_for, [str(gate)])
    for error in (TimeoutError, multiprocessing.TimeoutError, procflow.TimeoutError):
        with pytest.raises(error):
            future.get(0.01)
        with pytest.raises(error):
            results.next(0.01)
    assert not future.ready()
    with pytest.raises(ValueError, match="not ready"):
        future.successful()
    gate.touch()
    assert future.get(DEADLOCK) == results.next(DEADLOCK) == str(gate)


def test_a_task_that_has_not_begun_can_be_cancelled(open_local: Open, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with open_local(1) as pool:
        first = pool.submit(f.wait_for, str(gate))
        rest = [pool.submit(f.double, x) for x in range(10)]
        assert rest[-1].cancel()
        assert rest[-1].cancelled()
        with pytest.raises(procflow.CancelledError):
            rest[-1].result(DEADLOCK)
        gate.touch()
        assert first.result(DEADLOCK)
        assert not first.cancel()
        assert [future.result(DEADLOCK) for future in rest[:-1]] == [x * 2 for x in range(9)]


def test_a_wait_ends_when_another_thread_cancels(open_local: Open, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with open_local(1) as pool:
        pool.submit(f.wait_for, str(gate))
        future = [pool.submit(f.double, x) for x in range(5)][-1]
        waiter = threading.Thread(target=future.wait, daemon=True)
        waiter.start()
        wait_until(lambda: pool._core.lead._leader == waiter.ident, "the waiter leads")
        try:
            assert future.cancel()
            waiter.join(DEADLOCK)
            assert not waiter.is_alive()
        finally:
            gate.touch()


def test_the_end_of_an_input_wakes_a_consumer_that_leads(
    workers: procflow.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("procflow.dispatch.lead.LOOK", DEADLOCK)  # else it would look by itself
    core, asleep = workers._core, threading.Event()
    wait, feeding = core.engine.wait, core.feeding

    def wait_and_tell(timeout: float | None) -> list[int]:
        if timeout is None or timeout > 1:
            asleep.set()
        return wait(timeout)

    def stop_late(job: Any, reads: bool) -> None:
        feeding(job, reads)
        if not reads:  # the input has ended; the scheduler learns it when the consumer sleeps
            asleep.wait(DEADLOCK)

    monkeypatch.setattr(core.engine, "wait", wait_and_tell)
    monkeypatch.setattr(core, "feeding", stop_late)
    began = monotonic()
    assert list(workers.imap(f.double, iter([1]))) == [2]
    assert monotonic() - began < DEADLOCK


def test_a_wake_is_not_lost_on_a_leader_that_looks_before_it_sleeps() -> None:
    engine = local.LocalEngine("fork")
    try:
        engine._quick = True  # so it looks: tasks have been short
        engine.wake()
        began = monotonic()
        engine.wait(DEADLOCK)
        assert monotonic() - began < DEADLOCK
    finally:
        engine.close()


def test_several_threads_may_wait_for_one_pool(pool: procflow.Pool) -> None:
    found: dict[int, list[int]] = {}

    def use(number: int) -> None:
        found[number] = [pool.apply(f.add, (number, x)) for x in range(20)]

    threads = [threading.Thread(target=use, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLOCK)
    assert found == {number: [number + x for x in range(20)] for number in range(4)}


def test_a_map_is_not_finished_before_its_last_results_are_delivered(
    elsewhere: procflow.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, early = jobs.MapJob.deliver, list[bool]()

    def deliver(job: jobs.MapJob, *args: Any) -> None:
        other = threading.Thread(target=elsewhere.submit, args=(f.double, 1))  # it performs what is to be performed
        other.start()
        other.join(DEADLOCK)
        assert job.future is not None
        early.append(job.future.done())
        original(job, *args)

    monkeypatch.setattr(jobs.MapJob, "deliver", deliver)
    assert elsewhere.map_async(f.double, [1, 2, 3]).get(DEADLOCK) == [2, 4, 6]
    assert not any(early)


# -- inputs ----


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_an_endless_input_is_read_only_as_far_as_results_are_taken(pool: procflow.Pool, method: str) -> None:
    read = itertools.count()
    last = [0]

    def endless() -> Iterator[int]:
        for number in read:
            last[0] = number
            yield number

    results = getattr(pool, method)(f.double, endless(), buffersize=10)
    for taken in range(1, 50):
        next(results)
        assert last[0] < taken + 10
    results.close()


def test_without_a_buffersize_the_read_ahead_is_bounded_too(pool: procflow.Pool) -> None:
    last = [0]

    def endless() -> Iterator[int]:
        for number in itertools.count():
            last[0] = number
            yield number

    results = pool.imap(f.double, endless())
    assert next(results) == 0
    pool.apply(f.double, (1,))
    assert last[0] < 200_000
    results.close()


def test_an_input_that_raises_gives_what_came_before_it_first(pool: procflow.Pool) -> None:
    def broken() -> Iterator[int]:
        yield from range(5)
        raise LookupError("input")

    results = pool.imap(f.double, broken())
    assert [results.next(DEADLOCK) for _ in range(5)] == [0, 2, 4, 6, 8]
    with pytest.raises(LookupError, match="input"):
        results.next(DEADLOCK)
    with pytest.raises(LookupError, match="input"):
        pool.map(f.double, broken())


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_an_input_that_blocks_does_not_keep_results_that_are_ready(pool: procflow.Pool, method: str) -> None:
    gate = threading.Event()

    def blocking() -> Iterator[int]:
        yield from range(3)
        gate.wait(DEADLOCK)
        yield 3

    results = getattr(pool, method)(f.double, blocking())
    assert sorted(results.next(DEADLOCK) for _ in range(3)) == [0, 2, 4]
    gate.set()
    assert results.next(DEADLOCK) == 6
    with pytest.raises(StopIteration):
        results.next(DEADLOCK)


def test_an_iterator_that_is_dropped_reads_no_more(pool: procflow.Pool) -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.set()

    results = pool.imap(f.double, endless())
    assert next(results) == 0
    del results
    assert closed.wait(DEADLOCK)


# -- what does not pickle ----


def test_an_argument_that_does_not_pickle_fails_its_task_only(elsewhere: procflow.Pool) -> None:
    lock = threading.Lock()
    futures = [elsewhere.submit(f.recall, lock if x == 3 else x) for x in range(6)]
    errors = [future.exception(DEADLOCK) for future in futures]
    assert [x for x, error in enumerate(errors) if isinstance(error, procflow.PicklingError)] == [3]
    assert [error for error in errors if error is not None] == [errors[3]]


def test_the_error_leads_to_the_part_that_does_not_pickle(elsewhere: procflow.Pool) -> None:
    bad = {"config": [0, f.Holder(lock=threading.Lock())]}
    path = r"\['config'\]\[1\]\.lock"
    assert re.search(r"It is args\[0\]" + path, str(elsewhere.submit(f.recall, bad).exception(DEADLOCK)))
    assert re.search(r"It is kwargs\['y'\]" + path, str(elsewhere.submit(f.add, 1, y=bad).exception(DEADLOCK)))
    with pytest.raises(procflow.PicklingError, match="It is item 2" + path):
        elsewhere.map(f.recall, [0, 1, bad, 3], chunksize=2)
    with pytest.raises(procflow.PicklingError, match=r"It is result\[0\]\.lock"):
        elsewhere.apply(f.return_a_lock_inside)


def test_an_item_whose_unpickling_kills_its_worker_is_lost_alone(workers: procflow.Pool) -> None:
    """Items are unpickled together, so it has to be found."""
    items: list[object] = [f.KillsWhenUnpickled(os.getpid()) if n in (30, 170) else n for n in range(300)]
    assert workers.map(f.double, range(10_000)) == [2 * n for n in range(10_000)]
    results = workers.imap(f.recall, items)
    found = [outcome(results) for _ in items]
    assert [n for n, x in enumerate(found) if isinstance(x, procflow.WorkerDied)] == [30, 170]
    assert [x.task for x in found if isinstance(x, procflow.WorkerDied)] == [30, 170]
    with pytest.raises(procflow.WorkerDied):
        workers.map(f.recall, items)


@pytest.mark.parametrize("chunksize", [None, 1])
def test_an_item_that_does_not_pickle_fails_its_item_only(elsewhere: procflow.Pool, chunksize: int | None) -> None:
    items = [0, 1, threading.Lock(), 3, 4]
    results = elsewhere.imap(f.recall, items, chunksize)
    found = [outcome(results) for _ in items]
    assert [isinstance(x, procflow.PicklingError) for x in found] == [False, False, True, False, False]
    with pytest.raises(procflow.PicklingError):
        elsewhere.map(f.recall, items, chunksize)


@pytest.mark.parametrize(
    ("task", "error"),
    [
        (f.return_lock, procflow.PicklingError),
        (f.raise_lock, procflow.RemoteError),
        (f.raise_stubborn, procflow.RemoteError),
    ],
)
def test_what_does_not_cross_on_the_way_back_fails_its_task_only(
    elsewhere: procflow.Pool, task: Callable[..., object], error: type[Exception]
) -> None:
    futures = [elsewhere.submit(task if x == 3 else f.double, x) for x in range(6)]
    found = [future.exception(DEADLOCK) for future in futures]
    assert isinstance(found[3], error)
    assert [x for x in found if x is not None] == [found[3]]
    with pytest.raises(error):
        elsewhere.map(task, range(3))
    assert elsewhere.apply(f.double, (2,)) == 4


# -- deaths ----


def outcome(results: Any) -> object:
    try:
        return results.next(DEADLOCK)
    except Exception as error:
        return error


@pytest.mark.parametrize("how", DEATHS)
def test_a_worker_that_dies_fails_the_call_it_ran_and_no_other(workers: procflow.Pool, how: str) -> None:
    futures = [workers.submit(f.die_at, 7, how, x) for x in range(20)]
    errors = [future.exception(DEADLOCK) for future in futures]
    assert [x for x, error in enumerate(errors) if error is not None] == [7]
    died = errors[7]
    assert isinstance(died, procflow.WorkerDied)
    assert died.started
    assert died.exitcode == {"SIGKILL": -signal.SIGKILL, "segfault": -signal.SIGSEGV}.get(how, 3)
    assert [future.result() for x, future in enumerate(futures) if x != 7] == [x for x in range(20) if x != 7]


@pytest.mark.parametrize("how", DEATHS)
@pytest.mark.parametrize("chunksize", [None, 1])
def test_a_worker_that_dies_fails_the_item_it_ran_and_no_other(
    workers: procflow.Pool, how: str, chunksize: int | None
) -> None:
    results = workers.imap(partial(f.die_at, 7, how), range(20), chunksize)
    found = [outcome(results) for _ in range(20)]
    died = found.pop(7)
    assert isinstance(died, procflow.WorkerDied)
    assert died.task == 7
    assert found == [x for x in range(20) if x != 7]


@pytest.mark.parametrize("how", DEATHS)
def test_a_worker_that_dies_fails_the_map_it_ran_for_and_the_pool_goes_on(workers: procflow.Pool, how: str) -> None:
    with pytest.raises(procflow.WorkerDied):
        workers.map_async(partial(f.die_at, 7, how), range(20)).get(DEADLOCK)
    assert workers.map_async(f.double, range(20)).get(DEADLOCK) == list(range(0, 40, 2))


def test_sys_exit_in_a_serial_pool_fails_its_task_as_in_a_worker() -> None:
    with procflow.Pool(engine="serial") as pool:
        assert isinstance(pool.submit(f.die, "sys.exit").exception(), procflow.WorkerDied)
        assert pool.apply(f.double, (2,)) == 4


def test_an_idle_worker_that_is_killed_fails_nothing(workers: procflow.Pool) -> None:
    os.kill(workers.apply(f.pid), signal.SIGKILL)
    assert workers.map_async(f.double, range(20)).get(DEADLOCK) == list(range(0, 40, 2))
