"""What procflow's joblib backend promises. Nothing here is a stand-in: it is joblib, and scikit-learn, that run."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

pytest.importorskip("joblib")
import numpy as np
from joblib import Parallel, delayed, parallel_config

import procflow
import procflow.joblib
from procflow.shared_arrays import SharedArrays
from tests.contract import functions as f
from tests.support import DEADLOCK, descendants, wait_until

BIG = 2_000_000  # bytes: more than joblib's limit of 1 MB


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    procflow.joblib.register()
    yield
    procflow.joblib.shutdown()


def on_procflow(tasks: Any, n_jobs: int = 2, **options: Any) -> Any:
    with parallel_config("procflow", n_jobs=n_jobs):
        return Parallel(**options)(tasks)


def test_results_come_in_order_and_from_workers() -> None:
    assert on_procflow(delayed(f.double)(number) for number in range(500)) == list(range(0, 1000, 2))
    pids = set(on_procflow(delayed(f.pid)() for _ in range(20)))
    assert os.getpid() not in pids
    assert len(pids) <= 2


@pytest.mark.parametrize("start_method", ["fork", "spawn", "forkserver"])
def test_every_start_method_and_an_initializer(start_method: str) -> None:
    options = {"start_method": start_method, "initializer": f.remember, "initargs": (1, 2)}
    with parallel_config("procflow", n_jobs=2, **options):
        assert Parallel()(delayed(f.recall)() for _ in range(3)) == [[1, 2]] * 3


def test_one_job_runs_in_the_caller() -> None:
    assert on_procflow((delayed(f.pid)() for _ in range(2)), n_jobs=1) == [os.getpid()] * 2
    with pytest.raises(ValueError, match="n_jobs == 0"):
        on_procflow([delayed(f.pid)()], n_jobs=0)


def test_the_workers_are_used_again_and_shutdown_ends_them() -> None:
    first, second = (set(on_procflow(delayed(f.pid)() for _ in range(20))) for _ in range(2))
    assert first & second
    procflow.joblib.shutdown()
    wait_until(lambda: not (first | second) & set(descendants()), "their end")


def test_lambdas_and_generators() -> None:
    assert on_procflow(delayed(lambda x: -x)(number) for number in range(3)) == [0, -1, -2]
    results = on_procflow((delayed(f.double)(number) for number in range(5)), return_as="generator")
    assert list(results) == [0, 2, 4, 6, 8]


# -- failures ----


def test_an_error_ends_the_call_and_what_runs(tmp_path: Path) -> None:
    begun = monotonic()
    never = str(tmp_path / "never")
    with pytest.raises(ValueError, match="7"):
        on_procflow([delayed(f.wait_for)(never), delayed(f.fail)(7)])
    assert monotonic() - begun < DEADLOCK
    assert on_procflow(delayed(f.double)(number) for number in range(3)) == [0, 2, 4]


def test_with_a_managed_parallel_the_next_call_works_after_an_error() -> None:
    with parallel_config("procflow", n_jobs=2), Parallel() as parallel:
        with pytest.raises(ValueError, match="3"):
            parallel(delayed(f.odd_fails)(number) for number in (0, 2, 3, 4))
        assert parallel(delayed(f.double)(number) for number in range(4)) == [0, 2, 4, 6]


def test_the_timeout_of_a_call(tmp_path: Path) -> None:
    with pytest.raises(multiprocessing.TimeoutError):
        on_procflow([delayed(f.wait_for)(str(tmp_path / "never"))] * 2, timeout=0.1)


def test_a_worker_that_dies_fails_the_call_only() -> None:
    with pytest.raises(procflow.WorkerDied, match="SIGKILL"):
        on_procflow([delayed(f.die)("SIGKILL"), delayed(f.double)(1)])
    assert on_procflow([delayed(f.double)(1)] * 2) == [2, 2]


def test_an_error_in_one_thread_leaves_the_call_of_another_alone(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(on_procflow([delayed(f.wait_for)(str(gate))] * 2)))
    thread.start()
    with pytest.raises(ValueError, match="5"):
        on_procflow([delayed(f.fail)(5), delayed(f.double)(1)])
    gate.touch()
    thread.join(DEADLOCK)
    assert results == [[str(gate)] * 2]


# -- nesting ----


def nested(name: str | None, count: int) -> tuple[int, list[int]]:
    with parallel_config(name, n_jobs=2):
        return os.getpid(), Parallel()(delayed(f.pid)() for _ in range(count))


def nested_by_default(count: int) -> tuple[int, list[int]]:
    return os.getpid(), Parallel(n_jobs=2)(delayed(f.pid)() for _ in range(count))


def test_a_nested_call_uses_threads_unless_it_asks_for_processes() -> None:
    for outer, inner in on_procflow(delayed(nested_by_default)(4) for _ in range(3)):
        assert set(inner) == {outer}
    for outer, inner in on_procflow(delayed(nested)("procflow", 4) for _ in range(3)):
        assert outer not in inner
        assert len(inner) == 4


# -- the workers' threads ----


def variable(name: str) -> str | None:
    return os.environ.get(name)


def test_inner_max_num_threads_reaches_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with parallel_config("procflow", n_jobs=2, inner_max_num_threads=3):
        assert Parallel()([delayed(variable)("OMP_NUM_THREADS")] * 2) == ["3", "3"]
    share = str(max(procflow.cpu_count() // 2, 1))
    assert on_procflow([delayed(variable)("OMP_NUM_THREADS")] * 2) == [share] * 2


# -- big arrays ----


def write_and_sum(array: Any) -> float:
    before = float(array.sum())
    array[...] = -1
    return before


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_big_array_is_each_tasks_own_copy(order: Any) -> None:
    array = np.asarray(np.arange(BIG // 8, dtype=float).reshape(500, -1), order=order)
    expected = float(array.sum())
    assert on_procflow(delayed(write_and_sum)(array) for _ in range(10)) == [expected] * 10
    assert array[0, 1] != -1


def write_both_and_sum(one: Any, other: Any) -> float:
    before = write_and_sum(one)
    return before + float(other[0] + other[1])  # the same array, as it was the same for the caller


def test_calls_that_travel_together_have_arrays_of_their_own() -> None:
    array = np.zeros(BIG // 8)
    with parallel_config("procflow", n_jobs=2):
        sums = Parallel(batch_size=5)(delayed(write_both_and_sum)(array, array) for _ in range(20))
    assert sums == [-2.0] * 20


def test_who_was_lent_an_array_keeps_what_it_held_then() -> None:
    shared = SharedArrays(1000)
    array = np.zeros(1000)
    before = shared.lend(array)
    array[...] = 1.0
    after = shared.lend(array)
    assert [float(pickle.loads(pickle.dumps(lent)).sum()) for lent in (before, after)] == [0.0, 1000.0]
    shared.close()


def test_an_array_is_lent_once_and_small_or_odd_ones_are_not() -> None:
    shared = SharedArrays(1000)
    big = np.arange(1000)
    assert shared.lend(big) is shared.lend(big) is not big
    big[5] = 99
    first = shared.lend(big)
    assert first is shared.lend(big)
    for other in (big[:10], big[::2], np.array([None] * 1000), np.ma.masked_array(big), "text", None):
        assert shared.lend(other) is other
    shared.close()
    shared.close()


# -- scikit-learn ----


@pytest.mark.slow
def test_scikit_learn_gives_the_same_results() -> None:
    pytest.importorskip("sklearn")
    from sklearn.datasets import make_classification
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, cross_val_score

    data, target = make_classification(300, 10, random_state=0)
    grid = {"C": [0.01, 0.1, 1.0]}

    def results(n_jobs: int) -> list[Any]:
        search = GridSearchCV(LogisticRegression(), grid, n_jobs=n_jobs, cv=3).fit(data, target)
        forest = RandomForestClassifier(20, random_state=0, n_jobs=n_jobs).fit(data, target)
        return [
            cross_val_score(LogisticRegression(), data, target, n_jobs=n_jobs).tolist(),
            search.cv_results_["mean_test_score"].tolist(),
            search.best_params_,
            forest.predict_proba(data).tolist(),
        ]

    alone = results(1)
    with parallel_config("procflow", n_jobs=2):
        assert results(2) == alone


# -- without joblib ----


def test_without_joblib_the_import_says_what_brings_it(tmp_path: Path) -> None:
    (tmp_path / "joblib.py").write_text("raise ModuleNotFoundError('No module named joblib', name='joblib')")
    path = os.pathsep.join([str(tmp_path), str(Path(procflow.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", "import procflow.joblib"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'procflow[joblib]'" in done.stderr
