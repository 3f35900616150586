"""Parent and shutdown: every way in which a pool may come to its end."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

import procflow
from tests.faults import tasks
from tests.faults.outside import Program
from tests.support import DEADLOCK, open_fds


@pytest.mark.parametrize("name", ["end_without_close", "drop_then_go_on"])
def test_a_program_that_forgets_its_pool_ends(name: str, method: str, tmp_path: Path) -> None:
    with Program(name, method, tmp_path) as program:
        program.wait_began(2)
        assert program.wait_end() == 0, program.stderr
        assert program.stderr == ""


@pytest.mark.parametrize("act", ["close", "terminate"])
def test_a_pool_may_be_ended_by_other_threads_and_twice(act: str, ctx: procflow.Context) -> None:
    pool = ctx.Pool(2)
    mapped = pool.map_async(tasks.double, range(1000), 1)
    threads = [threading.Thread(target=getattr(pool, act)) for _ in range(4)]
    threads += [threading.Thread(target=_end, args=(pool, act)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLOCK)
        assert not thread.is_alive()
    error = mapped.exception(DEADLOCK)
    assert isinstance(error, procflow.PoolClosed | None) if act == "terminate" else error is None


def _end(pool: procflow.Pool, act: str) -> None:
    getattr(pool, act)()
    pool.join()


@pytest.mark.parametrize("act", ["close", "terminate"])
def test_a_pool_may_be_ended_by_a_callback(act: str, ctx: procflow.Context) -> None:
    pool = ctx.Pool(2)
    ended = threading.Event()

    def end(_: object) -> None:
        getattr(pool, act)()
        ended.set()

    pool.apply_async(tasks.double, (1,), callback=end)
    assert ended.wait(DEADLOCK)
    pool.join()


def test_two_pools_and_a_nested_one_work_side_by_side(ctx: procflow.Context) -> None:
    with ctx.Pool(1) as one, ctx.Pool(1) as two:
        first, second = one.map_async(tasks.double, range(200), 1), two.map_async(tasks.double, range(200), 1)
        nested = one.submit(tasks.map_in_a_pool, ctx.get_start_method())
        assert first.get(DEADLOCK) == second.get(DEADLOCK) == [2 * n for n in range(200)]
        assert nested.result(DEADLOCK) == [0, 2, 4]


def test_a_pool_in_a_task_has_the_workers_share_of_the_processors(
    ctx: procflow.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHON_CPU_COUNT", "6")
    with ctx.Pool(2) as pool:
        assert pool.apply(tasks.workers_of_a_pool_in_a_task, (ctx.get_start_method(),)) == [3, 1]
    with ctx.Pool() as pool:
        assert "6 workers" in repr(pool)


def test_opening_and_closing_leaves_no_descriptor(ctx: procflow.Context) -> None:
    with ctx.Pool(2) as pool:
        pool.apply(os.getpid)
    before = open_fds()
    for _ in range(20):
        with ctx.Pool(2) as pool:
            assert pool.apply(tasks.double, (1,)) == 2
    assert len(open_fds()) <= len(before)
