"""Worker and task: what becomes of a worker concerns nobody but the task that it held."""

from __future__ import annotations

import os
import random
import signal
import threading
from functools import partial
from pathlib import Path

import psutil
import pytest

import procflow
from tests.faults import tasks
from tests.support import DEADLOCK, wait_until

ENDS = ["sigkill", "sigterm", "segfault", "abort", "os_exit", "sys_exit"]


def answers(pool: procflow.Pool) -> bool:
    return pool.map_async(tasks.double, range(100)).get(DEADLOCK) == [2 * n for n in range(100)]


@pytest.mark.parametrize("end", ENDS)
def test_a_task_that_ends_its_worker_fails_alone(end: str, ctx: procflow.Context) -> None:
    with ctx.Pool(2) as pool:
        before = [pool.submit(tasks.double, n) for n in range(10)]
        bad = pool.submit(getattr(tasks, end))
        after = [pool.submit(tasks.double, n) for n in range(10)]
        died = bad.exception(DEADLOCK)
        assert isinstance(died, procflow.WorkerDied)
        assert died.started
        assert [future.result(DEADLOCK) for future in before + after] == [2 * n for n in range(10)] * 2


@pytest.mark.parametrize("raised", [KeyboardInterrupt, GeneratorExit, RecursionError, MemoryError, StopIteration])
def test_a_task_may_raise_anything(raised: type[BaseException], ctx: procflow.Context) -> None:
    with ctx.Pool(1) as pool:
        pid = pool.apply(os.getpid)
        assert type(pool.submit(tasks.raise_it, raised).exception(DEADLOCK)) is raised
        assert pool.apply(os.getpid) == pid


def test_a_task_that_meets_its_memory_limit_fails_alone(ctx: procflow.Context) -> None:
    with ctx.Pool(1) as pool:
        assert isinstance(pool.submit(tasks.exceed_memory_limit).exception(DEADLOCK), MemoryError)
        assert answers(pool)


def test_idle_workers_that_are_all_killed_are_replaced(ctx: procflow.Context) -> None:
    with ctx.Pool(3) as pool:
        for _ in range(3):
            wait_until(lambda: len(set(pool.map(tasks.pid_after_a_moment, range(6), 1))) == 3, "three workers")
            for pid in set(pool.map(tasks.pid_after_a_moment, range(6), 1)):
                os.kill(pid, signal.SIGKILL)
            assert pool.submit(tasks.double, 4).result(DEADLOCK) == 8
            assert answers(pool)


def test_a_worker_that_is_killed_while_it_reads_or_writes_much_fails_one_task(ctx: procflow.Context) -> None:
    data = b"x" * 50_000_000
    with ctx.Pool(2) as pool:
        for task in (tasks.length, tasks.echo):
            pids = {pool.apply(os.getpid) for _ in range(4)}
            future = pool.submit(task, data)
            os.kill(random.choice(sorted(pids)), signal.SIGKILL)
            assert isinstance(future.exception(DEADLOCK), procflow.WorkerDied | None)
            assert answers(pool)


def test_a_worker_that_dies_while_it_pickles_a_large_result_fails_that_task(ctx: procflow.Context) -> None:
    with ctx.Pool(1) as pool:
        assert isinstance(pool.submit(tasks.return_then_die).exception(DEADLOCK), procflow.WorkerDied)
        assert answers(pool)


def stopped_children() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if p.status() == psutil.STATUS_STOPPED]


def test_a_stopped_worker_keeps_only_its_own_task(ctx: procflow.Context) -> None:
    with ctx.Pool(2) as pool:
        stopped = pool.submit(tasks.stop_yourself)
        assert answers(pool)
        wait_until(stopped_children, "the stop")
        (child,) = stopped_children()
        child.send_signal(signal.SIGCONT)
        assert stopped.result(DEADLOCK) == child.pid


def test_terminate_ends_a_stopped_worker(ctx: procflow.Context) -> None:
    pool = ctx.Pool(1)
    pool.submit(tasks.stop_yourself)
    wait_until(stopped_children, "the stop")
    pool.terminate()
    pool.join()


@pytest.mark.parametrize("ends", ["return", "exit", "outlive"])
def test_a_task_that_forks_answers_once(ends: str, ctx: procflow.Context, tmp_path: Path) -> None:
    with ctx.Pool(1) as pool:
        assert pool.submit(tasks.fork, ends, tmp_path / "gate").result(DEADLOCK) == "parent"
        assert answers(pool)
    (tmp_path / "gate").touch()


def test_what_a_task_does_to_its_process_harms_no_other_task(ctx: procflow.Context) -> None:
    with ctx.Pool(1) as pool:
        assert pool.submit(tasks.start_threads).result(DEADLOCK) == "started"
        assert pool.submit(tasks.change_surroundings).result(DEADLOCK) == "changed"
        assert pool.submit(tasks.ignore_signals).result(DEADLOCK) == "ignored"
        assert answers(pool)


def test_a_function_that_is_not_there_in_the_worker_fails_its_task(ctx: procflow.Context) -> None:
    with ctx.Pool(1) as pool:
        for missing in (tasks.Missing("tests.faults.tasks", "nowhere"), tasks.Missing("no_such_module", "f")):
            assert isinstance(pool.submit(missing).exception(DEADLOCK), AttributeError | ImportError)
            with pytest.raises((AttributeError, ImportError)):
                pool.map(missing, range(3))
        assert answers(pool)


@pytest.mark.parametrize("end", ["sigkill", "os_exit", "raise_value_error"])
def test_an_initializer_that_fails_every_time_is_told_of(end: str, ctx: procflow.Context) -> None:
    with ctx.Pool(2, initializer=getattr(tasks, end)) as pool, pytest.raises(procflow.InitializerError):
        pool.map_async(tasks.double, range(10)).get(DEADLOCK)


def test_a_death_storm_costs_the_victims_only(ctx: procflow.Context) -> None:
    with ctx.Pool(2) as pool:
        stream = pool.imap(partial(tasks.double_or_die, 0.02), range(1000), 1)
        outcomes: list[object] = []
        while True:
            try:
                outcomes.append(stream.next(DEADLOCK))
            except StopIteration:
                break
            except procflow.WorkerDied as died:
                outcomes.append(2 * died.task)
        assert outcomes == [2 * n for n in range(1000)]


def test_workers_that_are_killed_in_their_initializer_are_replaced(ctx: procflow.Context, tmp_path: Path) -> None:
    """As long as there are not three of them in a row."""

    def starting() -> set[int]:
        return {int(path.name.partition("-")[2]) for path in tmp_path.glob("began-*")}

    with ctx.Pool(1, tasks.begin_and_wait, (tmp_path,)) as pool:
        future = pool.submit(tasks.double, 4)
        wait_until(starting, "a start")
        (first,) = starting()
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: starting() - {first}, "another start")
        (tmp_path / "gate").touch()
        assert future.result(DEADLOCK) == 8
        assert answers(pool)


def test_a_task_may_print_megabytes(ctx: procflow.Context, capfd: pytest.CaptureFixture[str]) -> None:
    with ctx.Pool(2) as pool:
        assert pool.map(tasks.print_much, [3, 4], 1) == [3, 4]
    out, err = capfd.readouterr()
    assert out.count("x") == err.count("x") == 7 * 999_999


@pytest.mark.slow
def test_a_storm_of_kills_from_outside_costs_the_victims_only(ctx: procflow.Context) -> None:
    """A random worker is killed every 20 ms while 5,000 tasks run; each is resolved once."""
    ended = threading.Event()
    kills = 0

    def kill() -> None:
        nonlocal kills
        while not ended.wait(0.02):
            ready = [worker for worker in list(workers.values()) if worker.ready]  # not three starting ones in a row
            if ready:
                random.choice(ready).child.send_signal(signal.SIGKILL)
                kills += 1

    # The initializer imports the tasks' module: workers are ready after it, and so have a chance to do something.
    with ctx.Pool(3, tasks.double, (1,)) as pool:
        workers = pool._core.engine._workers
        killer = threading.Thread(target=kill)
        killer.start()
        try:
            futures = [pool.submit(tasks.work_and_double, n) for n in range(5000)]
            outcomes = [future.exception(120) or future.result() for future in futures]
        finally:
            ended.set()
            killer.join()
        lost = [outcome for outcome in outcomes if isinstance(outcome, procflow.WorkerDied)]
        done = {n: outcome for n, outcome in enumerate(outcomes) if outcome not in lost}
        assert done == {n: 2 * n for n in done}
        assert 0 < len(lost) <= kills
        assert all(died.started for died in lost)
        assert answers(pool)
