"""What PoolExecutor promises, on every start method: the futures are the standard library's, and it never breaks."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

import procflow
from procflow import PoolExecutor
from tests.contract import functions as f
from tests.support import DEADLOCK, wait_until


@pytest.fixture
def executor(ctx: procflow.Context) -> Iterator[PoolExecutor]:
    made = PoolExecutor(2, ctx)
    yield made
    made.shutdown()


@pytest.fixture
def single() -> Iterator[PoolExecutor]:
    """One worker, so that a gate holds everything behind it back."""
    made = PoolExecutor(1)
    yield made
    made.shutdown()


# -- the standard library's surface ----


def test_it_is_an_executor_with_the_standard_librarys_futures(executor: PoolExecutor) -> None:
    assert isinstance(executor, concurrent.futures.Executor)
    future = executor.submit(f.add, 1, y=2)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(DEADLOCK) == 3
    assert future.done()
    assert not future.running()
    assert not future.cancelled()
    assert not future.cancel()
    assert future.exception() is None


def test_wait_and_as_completed_need_nobody_in_result(executor: PoolExecutor, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    held, quick, bad = executor.submit(f.wait_for, str(gate)), executor.submit(f.double, 4), executor.submit(f.fail, 5)
    done, _ = wait([held, quick], DEADLOCK, FIRST_COMPLETED)
    assert done == {quick}
    done, rest = wait([held, bad], DEADLOCK, FIRST_EXCEPTION)
    assert (done, rest) == ({bad}, {held})
    gate.touch()
    assert set(as_completed([held, quick, bad], DEADLOCK)) == {held, quick, bad}


def test_callbacks_come_although_nobody_waits(executor: PoolExecutor) -> None:
    seen: list[object] = []
    for number in range(20):
        executor.submit(f.double, number).add_done_callback(lambda future: seen.append(future.result()))
    wait_until(lambda: len(seen) == 20, "the callbacks")
    assert sorted(seen) == list(range(0, 40, 2))


def test_a_callback_may_submit_and_wait(executor: PoolExecutor) -> None:
    values: list[int] = []
    called = threading.Event()

    def again(future: concurrent.futures.Future[int]) -> None:
        values.append(executor.submit(f.double, future.result()).result(DEADLOCK))
        called.set()

    executor.submit(f.double, 1).add_done_callback(again)
    assert called.wait(DEADLOCK)
    assert values == [4]


def test_a_callback_that_blocks_keeps_no_result_from_who_waits(executor: PoolExecutor) -> None:
    entered, leave = threading.Event(), threading.Event()

    def block(_: object) -> None:
        entered.set()
        leave.wait(DEADLOCK)

    executor.submit(f.double, 1).add_done_callback(block)
    assert entered.wait(DEADLOCK)
    try:
        assert executor.submit(f.double, 2).result(DEADLOCK) == 4
    finally:
        leave.set()


def test_many_threads_may_wait_for_one_future(executor: PoolExecutor, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    future = executor.submit(f.wait_for, str(gate))
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(future.result(DEADLOCK))) for _ in range(8)]
    for thread in threads:
        thread.start()
    gate.touch()
    for thread in threads:
        thread.join(DEADLOCK)
    assert results == [str(gate)] * 8


def test_running_and_the_timeout(single: PoolExecutor, tmp_path: Path) -> None:
    gate, begun = tmp_path / "gate", tmp_path / "begun"
    held = single.submit(f.tell_and_wait_for, str(begun), str(gate))
    wait_until(begun.exists, "the running of the task")
    assert held.running()
    with pytest.raises(TimeoutError):
        held.result(0.01)
    with pytest.raises(concurrent.futures.TimeoutError):
        held.exception(0)
    assert not held.cancel()
    gate.touch()
    assert held.result(DEADLOCK) == str(gate)


def test_cancel_takes_back_what_has_not_begun(single: PoolExecutor, tmp_path: Path) -> None:
    gate, log, begun = tmp_path / "gate", tmp_path / "log", tmp_path / "begun"
    held = single.submit(f.tell_and_wait_for, str(begun), str(gate))
    wait_until(begun.exists, "the running of the first")
    waiting = [single.submit(f.note, str(log), "ran") for _ in range(5)]
    called: list[object] = []
    waiting[0].add_done_callback(called.append)
    assert all(future.cancel() for future in waiting)
    assert called == [waiting[0]]
    assert all(future.cancelled() and future.done() and future.cancel() for future in waiting)
    assert wait(waiting, DEADLOCK).done == set(waiting)
    with pytest.raises(concurrent.futures.CancelledError):
        waiting[1].result()
    gate.touch()
    assert held.result(DEADLOCK)
    single.shutdown()
    assert not log.exists()


# -- failures ----


def test_an_exception_brings_the_workers_traceback(executor: PoolExecutor) -> None:
    error = executor.submit(f.fail, 7).exception(DEADLOCK)
    assert isinstance(error, ValueError)
    assert "in fail" in str(error.__cause__)


def test_what_does_not_pickle_fails_its_future_only(executor: PoolExecutor) -> None:
    for bad in (executor.submit(f.double, threading.Lock()), executor.submit(f.return_lock)):
        assert isinstance(bad.exception(DEADLOCK), procflow.PicklingError)
    assert executor.submit(f.double, 1).result(DEADLOCK) == 2


@pytest.mark.parametrize("how", ["SIGKILL", "os._exit"])
def test_a_death_fails_one_future_and_breaks_nothing(executor: PoolExecutor, how: str) -> None:
    before = [executor.submit(f.double, number) for number in range(10)]
    victim = executor.submit(f.die, how)
    after = [executor.submit(f.double, number) for number in range(10)]
    with pytest.raises(BrokenProcessPool) as caught:
        victim.result(DEADLOCK)
    assert isinstance(caught.value, procflow.WorkerDied)
    assert caught.value.started
    assert [future.result(DEADLOCK) for future in before + after] == [*range(0, 20, 2)] * 2
    assert executor.submit(f.double, 21).result(DEADLOCK) == 42


def test_an_initializer_that_fails_fails_the_futures(ctx: procflow.Context) -> None:
    with PoolExecutor(1, ctx, f.fail_to_initialize) as executor:
        future = executor.submit(f.double, 1)
        with pytest.raises(BrokenProcessPool, match="no such luck") as caught:
            future.result(DEADLOCK)
        assert isinstance(caught.value, procflow.InitializerError)


def test_the_errors_pickle_as_they_are() -> None:
    import pickle

    from procflow.broken import InitializerError, WorkerDied

    for error in (WorkerDied(0, 7, -9, True), InitializerError(3, "text")):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), copy.args) == (type(error), error.args)
    assert "SIGKILL" in str(WorkerDied(0, 7, -9, True))


# -- map ----


def test_map_gives_results_in_order(executor: PoolExecutor) -> None:
    assert list(executor.map(f.double, range(1000))) == list(range(0, 2000, 2))
    assert list(executor.map(f.add, range(50), itertools.count(1), chunksize=7)) == list(range(1, 101, 2))
    assert list(executor.map(f.add, [1, 2, 3], [10, 20, 30], buffersize=2)) == [11, 22, 33]
    assert list(executor.map(f.double, range(10), buffersize=2, chunksize=3)) == list(range(0, 20, 2))
    assert list(executor.map(f.double, [])) == list(executor.map(f.double)) == []


def test_map_raises_at_the_item_that_failed(executor: PoolExecutor) -> None:
    for options in ({}, {"buffersize": 2}):
        results = executor.map(f.odd_fails, [0, 2, 3, 4], **options)
        assert [next(results), next(results)] == [0, 2]
        with pytest.raises(ValueError, match=r"^3$"):
            next(results)
        assert list(results) == []  # a generator that has raised is at its end


def test_map_times_out_and_cancels_the_rest(single: PoolExecutor, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    for options in ({}, {"buffersize": 3}):
        names = [str(tmp_path), str(gate), str(gate)]
        results = single.map(f.wait_for, names, timeout=0.2, **options)
        assert next(results) == str(tmp_path)
        with pytest.raises(concurrent.futures.TimeoutError):
            next(results)
        gate.touch()
        assert single.submit(f.double, 1).result(DEADLOCK) == 2
        gate.unlink()


def test_map_runs_although_nobody_takes_the_results(executor: PoolExecutor, tmp_path: Path) -> None:
    log = tmp_path / "log"
    executor.map(f.note, [str(log)] * 30, ["x"] * 30)
    gc.collect()
    wait_until(lambda: log.exists() and log.read_text() == "x\n" * 30, "thirty notes")


def test_with_a_buffersize_map_reads_only_as_far_as_it_says() -> None:
    with PoolExecutor(2) as executor:
        numbers = itertools.count()
        results = executor.map(f.double, numbers, buffersize=4)
        assert next(numbers) == 4
        assert next(results) == 0
        assert next(numbers) == 6  # 5 was read for the result that was taken
        executor.map(f.double, numbers, buffersize=3)
        executor.shutdown()
        assert next(numbers) == 10


def test_a_dropped_executor_ends_a_lazy_map_where_it_has_read() -> None:
    executor = PoolExecutor(1)
    results = executor.map(f.double, itertools.count(), buffersize=3)
    del executor
    gc.collect()
    assert list(results) == [0, 2, 4]


# -- the wrong arguments ----


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"max_workers": 0}, ValueError, "max_workers must be greater than 0"),
        ({"max_workers": -1}, ValueError, "max_workers must be greater than 0"),
        ({"initializer": 5}, TypeError, "initializer must be a callable"),
        ({"max_tasks_per_child": 0}, ValueError, "max_tasks_per_child must be >= 1"),
        ({"max_tasks_per_child": 1.5}, TypeError, "max_tasks_per_child must be an integer"),
        ({"max_tasks_per_child": 1, "mp_context": procflow.get_context("fork")}, ValueError, "'fork'"),
    ],
)
def test_wrong_arguments_are_refused_as_by_process_pool_executor(
    arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        concurrent.futures.ProcessPoolExecutor(**arguments)
    with pytest.raises(error, match=text):
        PoolExecutor(**arguments)


def test_maps_wrong_arguments_are_refused_at_once(single: PoolExecutor) -> None:
    with pytest.raises(ValueError, match="chunksize must be >= 1"):
        single.map(f.double, [1], chunksize=0)
    with pytest.raises(ValueError, match="buffersize must be None or > 0"):
        single.map(f.double, [1], buffersize=0)
    with pytest.raises(TypeError, match="buffersize must be an integer or None"):
        single.map(f.double, [1], buffersize="1")  # type: ignore[arg-type]


# -- workers ----


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_max_tasks_per_child_replaces_workers(method: str) -> None:
    with PoolExecutor(1, procflow.get_context(method), max_tasks_per_child=2) as executor:
        pids = [executor.submit(f.pid).result(DEADLOCK) for _ in range(6)]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4] == pids[5]


def test_the_initializer_runs_in_each_worker_and_multiprocessings_contexts_fit(method: str) -> None:
    import multiprocessing

    with PoolExecutor(2, multiprocessing.get_context(method), f.remember, (1, 2)) as executor:
        assert executor.submit(f.recall).result(DEADLOCK) == [1, 2]


# -- the end ----


def test_leaving_the_with_block_waits_for_what_was_accepted(ctx: procflow.Context) -> None:
    with PoolExecutor(2, ctx) as executor:
        futures = [executor.submit(f.double, number) for number in range(50)]
    assert all(future.done() for future in futures)
    for call in (lambda: executor.submit(f.double, 1), lambda: executor.map(f.double, [1])):
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            call()
    executor.shutdown()


def test_shutdown_without_waiting_and_a_dropped_executor_do_what_was_accepted(ctx: procflow.Context) -> None:
    executor = PoolExecutor(2, ctx)
    futures = [executor.submit(f.double, number) for number in range(20)]
    executor.shutdown(wait=False)
    assert [future.result(DEADLOCK) for future in futures] == list(range(0, 40, 2))
    executor = PoolExecutor(2, ctx)
    futures = [executor.submit(f.double, number) for number in range(20)]
    results = executor.map(f.double, range(20))
    del executor
    gc.collect()
    assert [future.result(DEADLOCK) for future in futures] == list(results) == list(range(0, 40, 2))


def test_shutdown_cancels_the_pending_futures_if_asked_to(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    executor = PoolExecutor(1)
    begun = tmp_path / "begun"
    held = executor.submit(f.tell_and_wait_for, str(begun), str(gate))
    wait_until(begun.exists, "the running of the first")
    waiting = [executor.submit(f.double, number) for number in range(30)]
    results = executor.map(f.double, range(30))
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in waiting)
    with pytest.raises(concurrent.futures.CancelledError):
        next(results)
    gate.touch()
    executor.shutdown()
    assert held.result(0) == str(gate)


PROGRAMS = {
    "left open": "executor.submit(say, 'apple')",
    "shutdown(wait=False)": "executor.submit(say, 'apple'); executor.shutdown(wait=False)",
    "dropped": "executor.submit(say, 'apple'); del executor",
    "a map that nobody reads": "executor.map(say, ['apple'])",
}


@pytest.mark.parametrize("end", PROGRAMS)
def test_the_interpreters_end_waits_for_what_was_accepted(end: str, method: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import time\n"
        "from procflow import PoolExecutor, get_context\n"
        "def say(what):\n    time.sleep(0.2)\n    print(what, flush=True)\n"
        f"if __name__ == '__main__':\n    executor = PoolExecutor(1, get_context({method!r}))\n    {PROGRAMS[end]}\n"
    )
    path = str(Path(procflow.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, str(program)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("apple\n", "")


def test_importing_procflow_imports_no_executor() -> None:
    program = (
        "import sys, procflow, procflow.executor\n"
        "assert 'concurrent.futures.process' not in sys.modules\n"
        "assert 'asyncio' not in sys.modules\n"
    )
    light = "import sys, procflow; assert 'concurrent.futures' not in sys.modules\n"
    for source in (light, program):
        path = str(Path(procflow.__file__).parents[1])
        subprocess.run([sys.executable, "-c", source], env={**os.environ, "PYTHONPATH": path}, check=True, timeout=60)


# -- those who take executors ----


def test_asyncio_runs_in_it(executor: PoolExecutor, tmp_path: Path) -> None:
    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        one = await loop.run_in_executor(executor, f.double, 1)
        many = await asyncio.gather(*[loop.run_in_executor(executor, f.double, number) for number in range(20)])
        wrapped = await asyncio.wrap_future(executor.submit(f.double, 3))
        with pytest.raises(ValueError, match="7"):
            await loop.run_in_executor(executor, f.fail, 7)
        return [one, many, wrapped]

    assert asyncio.run(asyncio.wait_for(main(), DEADLOCK)) == [2, list(range(0, 40, 2)), 6]


def test_cancelling_an_asyncio_future_cancels_the_task(single: PoolExecutor, tmp_path: Path) -> None:
    gate, log, begun = tmp_path / "gate", tmp_path / "log", tmp_path / "begun"

    async def main() -> None:
        held = single.submit(f.tell_and_wait_for, str(begun), str(gate))
        wait_until(begun.exists, "the running of the first")
        late = asyncio.wrap_future(single.submit(f.note, str(log), "ran"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(late, 0.05)
        gate.touch()
        await asyncio.wrap_future(held)

    asyncio.run(main())
    single.shutdown()
    assert not log.exists()


def test_tenacity_tries_a_task_again_after_a_death(executor: PoolExecutor, tmp_path: Path) -> None:
    tenacity = pytest.importorskip("tenacity")
    again = tenacity.retry_if_exception_type(BrokenProcessPool)
    attempt = tenacity.retry(retry=again, stop=tenacity.stop_after_attempt(3))
    log = tmp_path / "log"
    assert attempt(lambda: executor.submit(f.die_once, str(log)).result(DEADLOCK))() == "survived"
    assert log.read_text() == "tried\n"


def test_scipy_evolves_on_it(executor: PoolExecutor) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    bounds = [(-5.0, 5.0)] * 3
    options: dict[str, Any] = {"seed": 1, "maxiter": 5, "popsize": 5, "polish": False, "updating": "deferred"}
    alone = optimize.differential_evolution(optimize.rosen, bounds, **options)
    shared = optimize.differential_evolution(optimize.rosen, bounds, workers=executor.map, **options)
    assert (shared.x == alone.x).all()
