"""Pools on somebody's executor: what the executor decides, and what is refused."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import procflow
from procflow import TaskInfo, current_task
from procflow.engines import FuturesEngine
from procflow.worker.task import seed_of
from tests.clusters import PATH, SLOTS, executor, other_python
from tests.integration import targets_clusters as t
from tests.support import DEADLOCK, wait_until


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(SLOTS) as made:
        yield made


# -- whose it is ----


def test_the_executor_stays_its_owners(threads: ThreadPoolExecutor) -> None:
    engine = FuturesEngine(threads)
    for _ in range(2):
        with procflow.Pool(engine=engine) as pool, procflow.Pool(engine=engine) as other:
            assert pool.map(t.double, range(20)) == other.map(t.double, range(20)) == list(range(0, 40, 2))
    assert threads.submit(t.double, 1).result(DEADLOCK) == 2


def test_a_pool_may_have_fewer_workers_than_the_executor(threads: ThreadPoolExecutor, tmp_path: Path) -> None:
    with procflow.Pool(1, engine=FuturesEngine(threads)) as pool:
        assert pool.map(t.double, range(3)) == [0, 2, 4]
        assert pool._core.scheduler.processes == 1


class Bare(Executor):
    """Runs each call in a thread of its own, and doesn't say how many it runs."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        threading.Thread(target=lambda: future.set_result(fn(*args, **kwargs))).start()
        return future


def test_an_executor_of_unknown_size_needs_a_number() -> None:
    with pytest.raises(ValueError, match=r"Bare doesn't say how many workers.*Pool\(processes"):
        procflow.Pool(engine=FuturesEngine(Bare()))
    with procflow.Pool(2, engine=FuturesEngine(Bare())) as pool:
        assert pool.map(t.double, range(9)) == list(range(0, 18, 2))


def test_what_is_no_engine_is_refused() -> None:
    for wrong in (3, Bare(), FuturesEngine):
        with pytest.raises(TypeError, match="engine must be"):
            procflow.Pool(engine=wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"concurrent\.futures\.Executor, not int"):
        FuturesEngine(3)  # type: ignore[arg-type]


# -- what it can't do ----


def test_a_task_that_runs_is_not_ended_and_its_owner_is_told(threads: ThreadPoolExecutor, tmp_path: Path) -> None:
    with procflow.Pool(engine=FuturesEngine(threads)) as pool:
        with pytest.raises(ValueError, match=r"timeout= can't be had.*does not end one that runs"):
            pool.options(timeout=1)
        future = pool.submit(t.tell_and_wait_for, tmp_path / "begun", tmp_path / "gate")
        wait_until((tmp_path / "begun").exists, "the beginning of a task")
        try:
            with pytest.raises(ValueError, match="does not end one that runs"):
                future.kill()
        finally:
            (tmp_path / "gate").touch()
        assert future.result(DEADLOCK)


def test_what_waits_in_the_executor_is_taken_back(threads: ThreadPoolExecutor, tmp_path: Path) -> None:
    with procflow.Pool(engine=FuturesEngine(threads)) as pool:
        try:
            running = [pool.submit(t.tell_and_wait_for, tmp_path / str(n), tmp_path / "gate") for n in range(SLOTS)]
            for n in range(SLOTS):
                wait_until((tmp_path / str(n)).exists, "the beginning of a task")
            rest = [pool.submit(t.double, n) for n in range(4 * SLOTS)]
            assert rest[0].cancel()
            assert rest[-1].cancel()
        finally:
            (tmp_path / "gate").touch()
        assert [future.result(DEADLOCK) for future in rest[1:-1]] == [2 * n for n in range(1, 4 * SLOTS - 1)]
        assert all(future.result(DEADLOCK) for future in running)


def test_terminate_does_not_wait_for_what_runs(threads: ThreadPoolExecutor, tmp_path: Path) -> None:
    pool = procflow.Pool(engine=FuturesEngine(threads))
    futures = [pool.submit(t.tell_and_wait_for, tmp_path / str(n), tmp_path / "gate") for n in range(6)]
    wait_until((tmp_path / "0").exists, "the beginning of a task")
    try:
        pool.terminate()
        pool.join()
        assert all(isinstance(future.exception(0), procflow.PoolClosed) for future in futures)
        assert not (tmp_path / "5").exists()  # it was cancelled in the executor
    finally:
        (tmp_path / "gate").touch()


# -- what tasks are told ----


def test_tasks_that_run_in_threads_of_one_process_know_which_they_are(
    threads: ThreadPoolExecutor, tmp_path: Path
) -> None:
    with procflow.Pool(engine=FuturesEngine(threads), seed=5) as pool:
        futures = [pool.submit(t.meet_and_tell, tmp_path, SLOTS) for _ in range(SLOTS)]
        told: list[TaskInfo] = [future.result(DEADLOCK) for future in futures]
    assert [task.seed for task in told] == [seed_of(5, 1, place) for place in range(SLOTS)]
    assert {task.worker for task in told} <= set(range(SLOTS))
    assert all(threads.submit(nothing_runs).result(DEADLOCK) for _ in range(SLOTS))


def nothing_runs() -> bool:
    try:
        current_task()
    except procflow.NoCurrentTask:
        return True
    return False


# -- when it fails ----


def test_an_executor_that_breaks_fails_all_that_is_pending(tmp_path: Path) -> None:
    with executor() as made, procflow.Pool(engine=FuturesEngine(made)) as pool:
        futures = [pool.submit(t.tell_and_wait_for, tmp_path / str(n), tmp_path / "gate") for n in range(9)]
        results = pool.imap(t.double, iter(range(1000)))
        wait_until(lambda: (tmp_path / "0").exists() and (tmp_path / "0").read_text(), "the beginning of a task")
        os.kill(int((tmp_path / "0").read_text()), signal.SIGKILL)
        for future in futures:
            error = future.exception(DEADLOCK)
            assert isinstance(error, procflow.EngineError)
            assert "the pool's executor is lost: BrokenProcessPool" in str(error)
        with pytest.raises(procflow.EngineError):
            list(results)
        with pytest.raises(procflow.EngineError, match="BrokenProcessPool"):
            pool.submit(t.double, 1)


def test_an_executor_that_is_shut_down_takes_no_tasks() -> None:
    made = ThreadPoolExecutor(1)
    with procflow.Pool(engine=FuturesEngine(made)) as pool:
        assert pool.apply(t.double, (1,)) == 2
        made.shutdown()
        assert isinstance(pool.submit(t.double, 1).exception(DEADLOCK), procflow.EngineError)
    with pytest.raises(procflow.EngineError, match="takes no tasks"):
        procflow.Pool(engine=FuturesEngine(made))


class Noting(ThreadPoolExecutor):
    """Keeps its futures for the test to cancel."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.futures: list[Future[Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.futures.append(super().submit(fn, *args, **kwargs))
        return self.futures[-1]


def test_a_call_that_somebody_cancels_in_the_executor_is_sent_again(tmp_path: Path) -> None:
    with Noting(1) as made, procflow.Pool(engine=FuturesEngine(made)) as pool:
        try:
            running = pool.submit(t.tell_and_wait_for, tmp_path / "begun", tmp_path / "gate")
            wait_until((tmp_path / "begun").exists, "the beginning of a task")
            waiting = pool.submit(t.double, 21)
            wait_until(lambda: len(made.futures) == 3, "a call in the queue")  # the first one was about versions
            assert made.futures[2].cancel()
        finally:
            (tmp_path / "gate").touch()
        assert waiting.result(DEADLOCK) == 42
        assert running.result(DEADLOCK)


def test_an_initializer_that_fails_fails_the_tasks(threads: ThreadPoolExecutor) -> None:
    with procflow.Pool(engine=FuturesEngine(threads), initializer=t.die_at, initargs=(1, 2, 3)) as pool:
        error = pool.submit(t.double, 1).exception(DEADLOCK)
        assert isinstance(error, procflow.InitializerError)
        assert "TypeError" in str(error)
        with pytest.raises(procflow.InitializerError):
            pool.map(t.double, range(100))


def test_an_initializer_runs_once_in_a_process(threads: ThreadPoolExecutor, tmp_path: Path) -> None:
    def note() -> None:
        with (tmp_path / "notes").open("a") as file:
            file.write("x")

    with procflow.Pool(engine=FuturesEngine(threads), initializer=note) as pool:
        assert pool.map(t.double, range(200), 1) == list(range(0, 400, 2))
    assert (tmp_path / "notes").read_text() == "x"


def test_an_initializer_that_can_not_be_sent_is_refused(threads: ThreadPoolExecutor) -> None:
    with pytest.raises(procflow.PicklingError, match=r"initargs\[1\]"):
        procflow.Pool(engine=FuturesEngine(threads), initializer=t.double, initargs=(1, threading.Lock()))


# -- another Python ----

FOREIGN = """
import pickle, sys
while True:
    function, args = pickle.load(sys.stdin.buffer)
    try:
        answer = True, function(*args)
    except Exception as error:
        answer = False, error
    sys.stdout.buffer.write(pickle.dumps(answer))
    sys.stdout.buffer.flush()
"""


class Foreign(Executor):
    """One process of another Python."""

    _max_workers = 1

    def __init__(self, python: str) -> None:
        self.sent: list[str] = []
        self._process = subprocess.Popen(
            [python, "-c", FOREIGN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": PATH},
        )

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.sent.append(fn.__name__)
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(pickle.dumps((fn, args)))
        stdin.flush()
        future: Future[Any] = Future()
        good, answer = pickle.load(stdout)
        if good:
            future.set_result(answer)
        else:
            future.set_exception(answer)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._process.kill()
        self._process.communicate()


def test_a_worker_of_another_python_gets_nothing_of_the_users() -> None:
    with Foreign(other_python()) as made, procflow.Pool(engine=FuturesEngine(made)) as pool:
        error = pool.submit(t.double, 1).exception(DEADLOCK)
        assert isinstance(error, procflow.EngineError)
        assert "Functions travel as bytecode" in str(error)
        assert made.sent == ["versions"]
