"""Tasks that travel together hold nothing up: not what is behind a long one, and not the results of what is done."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

import procflow
from procflow.dispatch.dispatcher import Dispatcher
from procflow.engines.local import LocalEngine
from tests.integration import targets_pool as targets
from tests.support import DEADLOCK, wait_until

QUICK = 2000  # calls that teach the pool to put many into one packet


@pytest.fixture(params=[False, True], ids=["packets", "portable"])
def pool(
    request: pytest.FixtureRequest, method: str, monkeypatch: pytest.MonkeyPatch
) -> procflow.Pool:  # closed by the tests
    if request.param:
        monkeypatch.setenv("PROCFLOW_PORTABLE", "1")
    pool = procflow.get_context(method).Pool(2)
    for future in [pool.submit(targets.double, n) for n in range(QUICK)]:
        future.result(DEADLOCK)
    return pool


def test_a_result_is_there_while_the_call_behind_it_runs(pool: procflow.Pool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with pool:
        calls = [[pool.submit(targets.double, n) for n in range(QUICK)], [pool.submit(targets.wait_for_file, gate)]]
        for _ in range(2):  # both workers come to wait
            calls += [[pool.submit(targets.double, n) for n in range(5)], [pool.submit(targets.wait_for_file, gate)]]
        quick, waiting = [future for group in calls[::2] for future in group], [group[0] for group in calls[1::2]]
        assert [future.result(DEADLOCK) for future in quick[:QUICK]] == [2 * n for n in range(QUICK)]
        gate.touch()
        assert [future.result(DEADLOCK) for future in quick + waiting]


def test_a_call_waits_for_one_that_was_submitted_after_it(pool: procflow.Pool, tmp_path: Path) -> None:
    with pool:
        for turn in range(20):
            gate = tmp_path / f"gate{turn}"
            futures = [pool.submit(targets.double, n) for n in range(200)]
            futures.append(pool.submit(targets.wait_for_file, gate))
            futures += [pool.submit(targets.double, n) for n in range(turn)]
            futures.append(pool.submit(gate.touch))
            for future in futures:
                future.result(DEADLOCK)


def test_what_is_behind_a_long_item_of_a_map_runs_elsewhere(pool: procflow.Pool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    items = [*range(3000), gate, *range(200)]
    with pool:
        stream = pool.imap_unordered(targets.double_or_wait_for_file, items)
        others = list(itertools.islice(stream, 3050))  # more than what is before the long one
        assert gate not in others
        gate.touch()
        assert len(others) + len(list(stream)) == len(items)


def test_items_of_a_chunk_are_not_parted(pool: procflow.Pool, tmp_path: Path) -> None:
    """A chunk runs in one process, in order, however long its first item takes."""
    with pool:
        found = pool.map(targets.pid_after_a_while, [1, 2, 3, 4, 5, 6], chunksize=3)
    assert len(set(found[:3])) == 1
    assert len(set(found[3:])) == 1


def test_each_call_runs_once_however_often_packets_are_cut_short(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("procflow.dispatch.dispatcher.STALL", 0.0)
    monkeypatch.setattr("procflow.engines.local_worker.CUT_PAUSE", 50e-6)
    log = tmp_path / "log"
    with procflow.Pool(2) as pool:
        for _ in range(10):
            futures = [pool.submit(targets.append_line, log, n) for n in range(500)]
            assert [future.result(DEADLOCK) for future in futures] == list(range(500))
        assert pool.map(targets.double, range(50_000)) == [2 * n for n in range(50_000)]
    assert len(log.read_text().splitlines()) == 5000


def test_results_that_a_worker_did_not_write_are_read_once() -> None:
    """An answer may still be in the pipe while the log of the packet behind it is looked at."""
    with procflow.Pool(1) as pool:
        core = pool._core
        assert isinstance(core, Dispatcher)
        assert isinstance(core.engine, LocalEngine)
        for _ in range(300):
            futures = [pool.submit(targets.double, n) for n in range(100)]
            for worker in core.engine._workers:
                with core.guard:
                    core.engine.cut(worker)
            assert [future.result(DEADLOCK) for future in futures] == [2 * n for n in range(100)]


def test_what_is_behind_a_call_that_runs_can_be_cancelled(pool: procflow.Pool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with pool:
        for turn in range(5):
            begun = [tmp_path / f"begun{turn}{number}" for number in range(2)]
            running = [pool.submit(targets.tell_and_wait_for_file, path, gate) for path in begun]
            wait_until(lambda: all(path.exists() for path in begun), "the running of both")  # noqa: B023
            waiting = [pool.submit(targets.double, n) for n in range(50)]
            assert all(future.cancel() for future in waiting)
            gate.touch()
            assert all(future.result(DEADLOCK) for future in running)
            gate.unlink()


def test_what_waits_is_cancelled_though_its_worker_was_asked_something_else(
    pool: procflow.Pool, tmp_path: Path
) -> None:
    """The pool may just be looking where the worker is, for a reason of its own."""
    gate = tmp_path / "gate"
    core = pool._core
    assert isinstance(core, Dispatcher)
    with pool:
        begun = [tmp_path / f"begun{number}" for number in range(2)]
        running = [pool.submit(targets.tell_and_wait_for_file, path, gate) for path in begun]
        wait_until(lambda: all(path.exists() for path in begun), "the running of both")
        waiting = [pool.submit(targets.double, n) for n in range(50)]
        for future in waiting:
            with core.guard:
                for worker in core.scheduler.workers:
                    core.engine.cut(worker)
            assert future.cancel()
        gate.touch()
        assert all(future.result(DEADLOCK) for future in running)
