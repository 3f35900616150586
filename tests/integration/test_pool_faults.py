"""A pool outlives what its tasks, its user's code and the system do to it. Each test is a fault that once broke it."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import procflow
from tests.integration import targets_pool as targets
from tests.support import DEADLOCK


def test_a_task_that_forks_and_whose_child_returns_answers_once(ctx: procflow.Context) -> None:
    with ctx.Pool(1) as pool:
        assert pool.submit(targets.fork_and_return_in_both, 7).result(DEADLOCK) == 7
        assert pool.map(targets.double, range(100)) == [2 * n for n in range(100)]


def test_the_result_of_a_task_that_closes_the_workers_descriptors_is_salvaged(ctx: procflow.Context) -> None:
    with ctx.Pool(2) as pool:
        assert pool.submit(targets.close_all_descriptors).result(DEADLOCK) == "closed"
        assert pool.map(targets.double, range(100)) == [2 * n for n in range(100)]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])  # a fork would have the test run's own pipes, too
def test_garbage_that_a_task_writes_into_its_workers_pipe_fails_at_most_that_task(method: str) -> None:
    with procflow.get_context(method).Pool(2) as pool:
        error = pool.submit(targets.write_garbage_into_the_pipes).exception(DEADLOCK)
        assert error is None or isinstance(error, procflow.WorkerDied)  # its result may be salvaged
        assert pool.map(targets.double, range(100)) == [2 * n for n in range(100)]


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, GeneratorExit, RuntimeError])
def test_a_callback_may_raise_anything_and_the_next_one_is_called(raised: type[BaseException]) -> None:
    called = threading.Event()

    def fail(_: object) -> None:
        raise raised

    with procflow.Pool(1) as pool:
        pool.apply_async(targets.double, (1,), callback=fail)
        pool.submit(targets.double, 2).add_done_callback(lambda _: called.set())
        assert called.wait(DEADLOCK)


@pytest.mark.parametrize("raised", ["SystemExit", "GeneratorExit", "ValueError"])
def test_a_reduction_may_raise_anything_and_only_its_task_fails(raised: str) -> None:
    with procflow.Pool(1) as pool:
        bad = targets.RaisesWhenPickled(raised)
        assert isinstance(pool.submit(targets.double, bad).exception(DEADLOCK), procflow.PicklingError)
        with pytest.raises(procflow.PicklingError):
            pool.map(targets.double, [1, bad, 3])
        assert pool.map(targets.double, [1, 2]) == [2, 4]


def test_an_object_whose_repr_fails_is_refused_all_the_same() -> None:
    with procflow.Pool(1) as pool:
        assert isinstance(pool.submit(targets.HasNoRepr()).exception(DEADLOCK), procflow.PicklingError)


def test_streams_in_cycles_are_collected_at_any_moment() -> None:
    with procflow.Pool(1) as pool:
        for _ in range(100):
            stream = pool.imap(targets.double, iter(range(1000)))
            cycle: list[object] = [stream]
            cycle.append(cycle)
            assert next(stream) == 0
        gc.collect()
        assert pool.apply(targets.double, (3,)) == 6


def test_a_terminate_that_was_interrupted_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = procflow.Pool(1)
    running = pool.submit(targets.wait_for_a_signal)
    core = pool._core
    assert core is not None
    terminate = core.engine.terminate

    def interrupted() -> None:  # once: the background thread, where nobody interrupts it, goes on with it
        monkeypatch.setattr(core.engine, "terminate", terminate)
        raise KeyboardInterrupt

    monkeypatch.setattr(core.engine, "terminate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool.terminate()
    assert isinstance(running.exception(DEADLOCK), procflow.PoolClosed)
    pool.terminate()
    pool.join()


class Interrupting:
    """A signal comes while this is pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        signal.raise_signal(signal.SIGUSR1)
        return int, ()


def _leave(_signum: int, _frame: object) -> None:
    sys.exit(7)


@pytest.mark.parametrize("way", ["submit", "map", "result", "callback"])
def test_what_a_signal_handler_raises_amid_user_code_is_the_programs(way: str) -> None:
    before = signal.signal(signal.SIGUSR1, _leave)
    try:
        with procflow.Pool(1) as pool, pytest.raises(SystemExit):
            if way == "submit":
                pool.submit(targets.double, Interrupting())  # type: ignore[arg-type]
            elif way == "map":
                pool.map(targets.double, [Interrupting()])  # type: ignore[list-item]
            elif way == "result":
                pool.submit(targets.raises_signal_where_it_is_unpickled, signal.SIGUSR1).result(DEADLOCK)
            else:
                future = pool.submit(targets.double, 1)
                future.add_done_callback(lambda _: signal.raise_signal(signal.SIGUSR1))
                future.result(DEADLOCK)
                while True:  # the callback may be another thread's to run; the handler is this one's
                    time.sleep(0.01)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_worker_that_ignores_sigterm_is_killed_by_terminate(ctx: procflow.Context) -> None:
    pool = ctx.Pool(1)
    assert pool.apply(targets.ignore_sigterm) is None
    pool.terminate()
    pool.join()


def test_a_pool_that_was_dropped_warns_and_leaves_nothing(ctx: procflow.Context) -> None:
    pool = ctx.Pool(2)
    assert pool.apply(targets.double, (2,)) == 4
    with pytest.warns(ResourceWarning, match="unclosed"):
        del pool


def test_a_fork_of_the_program_refuses_the_pool_and_harms_nothing() -> None:
    with procflow.Pool(2) as pool:
        assert pool.apply(targets.double, (2,)) == 4
        child = os.fork()
        if child == 0:
            try:
                pool.submit(targets.double, 1)
            except procflow.PoolClosed:
                os._exit(0)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert pool.map(targets.double, range(10)) == [2 * n for n in range(10)]


def test_a_task_may_have_a_pool_of_its_own(ctx: procflow.Context) -> None:
    with ctx.Pool(1) as pool:
        assert pool.apply(targets.sum_in_a_pool, (ctx.get_start_method(), 10)) == sum(range(10)) * 2


def test_a_call_does_not_wait_behind_a_long_one_while_a_worker_is_idle(ctx: procflow.Context, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    for _ in range(5):
        with ctx.Pool(2) as pool:
            waiting = pool.submit(targets.wait_for_file, gate)
            opening = pool.submit(targets.make_file, gate)
            assert opening.result(DEADLOCK) is None
            assert waiting.result(DEADLOCK)
        os.unlink(gate)


def test_calls_that_wait_for_each_other_do_not_share_a_packet(tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    with procflow.Pool(2) as pool:
        for _ in range(50):  # quick ones, so that the pool would think that they can travel together
            pool.apply(targets.double, (1,))
        quick = [pool.submit(targets.double, n) for n in range(200)]
        waiting = pool.submit(targets.wait_for_file, gate)
        opening = [pool.submit(targets.make_file, gate) for _ in range(200)]
        assert waiting.result(DEADLOCK)
        assert [future.result(DEADLOCK) for future in quick] == [2 * n for n in range(200)]
        assert not any(future.exception(DEADLOCK) for future in opening)


def test_an_exception_that_overrides_its_own_methods_arrives(ctx: procflow.Context) -> None:
    with ctx.Pool(1) as pool:
        error = pool.submit(targets.raise_stubborn).exception(DEADLOCK)
        assert isinstance(error, targets.Stubborn)
        assert error.args == ("here",)
        assert "raise_stubborn" in str(error.__cause__)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])  # a fork needs no pickle
def test_initargs_that_cannot_be_sent_are_an_error_of_the_pool_that_names_them(ctx: procflow.Context) -> None:
    forks = multiprocessing.get_context("fork")
    for given, what in [
        (forks.Lock(), rf"get_context\('{ctx.get_start_method()}'\)\.Lock\(\)"),
        (threading.Lock(), "cannot pickle"),
    ]:
        with pytest.raises(procflow.PicklingError, match=rf"^initargs\[1\] of the pool.*{what}"):
            ctx.Pool(2, targets.double, (0, given))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"processes": "2"}, "'str' object"),
        ({"processes": 2.0}, "'float' object"),
        ({"context": "spawn"}, r"get_context\('spawn'\)"),
        ({"initializer": 3}, "callable"),
    ],
)
def test_an_argument_of_the_wrong_type_is_refused_by_the_pool(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        procflow.Pool(**arguments)


def test_initargs_that_no_longer_pickle_are_told_of_by_the_tasks_that_need_a_new_worker() -> None:
    given: list[object] = []
    with procflow.get_context("spawn").Pool(1, targets.keep, (given,), maxtasksperchild=1) as pool:
        given.append(threading.Lock())
        first = pool.submit(targets.double, 1)
        with pytest.raises(procflow.InitializerError, match=r"could not be started: .*initargs\[0\]") as caught:
            pool.map(targets.double, range(3), 1)
        assert first.result(DEADLOCK) == 2
    assert "initializer raised" not in str(caught.value)


def test_initargs_that_cannot_be_rebuilt_in_the_worker_are_told_of_by_the_tasks() -> None:
    with procflow.get_context("spawn").Pool(1, targets.keep, (targets.RaisesWhenUnpickled(),)) as pool:
        error = pool.submit(targets.double, 1).exception(DEADLOCK)
    assert isinstance(error, procflow.InitializerError)
    assert "can't be rebuilt in a worker" in str(error)
    assert "no such thing here" in str(error)
