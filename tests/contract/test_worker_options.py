"""What workers are made with: environment, threads, processors, context, preload; on every start method."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import procflow
from procflow.engines.serial import SerialEngine
from procflow.engines.setup import Setup
from tests.clusters import CLUSTERS
from tests.contract import functions_workers as w
from tests.contract.conftest import Open, join
from tests.support import DEADLOCK, wait_until

ALLOWED = sorted(os.sched_getaffinity(0))
NAME = "PROCFLOW_TEST_GPU"


def gathered(pool: procflow.Pool, folder: Path, number: int = 2) -> dict[int, tuple[int, Any]]:
    """Have all workers work at once; return the pid and the variable of each slot."""
    folder.mkdir()
    futures = [pool.submit(w.meet, folder, number, [NAME]) for _ in range(number)]
    met = [future.result(DEADLOCK) for future in futures]
    assert len({pid for pid, _, _ in met}) == number
    return {slot: (pid, variables[0]) for pid, slot, variables in met}


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


# -- slots and env= ----


def test_each_slot_may_have_an_environment_of_its_own(tmp_path: Path) -> None:
    with procflow.Pool(2, env=[{NAME: "gpu 0"}, {NAME: "gpu 1"}]) as pool:
        met = gathered(pool, tmp_path / "met")
        assert {slot: gpu for slot, (_, gpu) in met.items()} == {0: "gpu 0", 1: "gpu 1"}


def test_a_worker_that_replaces_another_has_its_slot(open_local: Open, tmp_path: Path) -> None:
    with open_local(2, env=lambda slot: {NAME: str(slot)}) as pool:
        first = gathered(pool, tmp_path / "first")
        os.kill(first[1][0], 9)
        second = gathered(pool, tmp_path / "second")
        assert second[0] == first[0]
        assert second[1][0] != first[1][0]
        assert second[1][1] == "1"


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_the_environment_is_there_before_an_import(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reads_env.py").write_text(f"import os\nKEPT = os.environ.get({NAME!r})")
    monkeypatch.syspath_prepend(tmp_path)
    with procflow.get_context(method).Pool(1, env={NAME: "7"}) as pool:
        assert pool.apply(w.kept_at_import, ("reads_env",))[0] == "7"
    assert NAME not in os.environ


# -- threads_per_worker= and cpu_affinity= ----


def test_numpy_uses_as_many_threads_as_it_may(open_local: Open) -> None:
    with open_local(1, threads_per_worker=1) as pool:
        assert pool.apply(w.threads_of_numpy) == {1}
        assert pool.apply(w.variable, ("OMP_NUM_THREADS",)) == "1"


def test_env_has_the_last_word_on_threads() -> None:
    with procflow.Pool(1, threads_per_worker=1, env={"MKL_NUM_THREADS": "3"}) as pool:
        assert pool.map(w.variable, ["MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"]) == ["3", "1"]


def output(program: str) -> str:
    """Run a program of its own: its fork server imports what that of the tests is not to have."""
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLOCK, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_library_that_was_preloaded_is_limited_too() -> None:
    program = """
    import procflow
    from tests.contract import functions_workers as w
    with procflow.get_context("forkserver").Pool(1, preload=["numpy"], threads_per_worker=1) as pool:
        print(pool.apply(w.threads_of_numpy))
    """
    assert output(program) == "{1}\n"


def test_without_threadpoolctl_a_limit_that_comes_too_late_is_refused() -> None:
    program = """
    import sys
    import numpy
    import procflow
    sys.modules["threadpoolctl"] = None
    for method, preload in (("fork", ()), ("forkserver", ["numpy"])):
        try:
            procflow.get_context(method).Pool(1, threads_per_worker=1, preload=preload)
        except ModuleNotFoundError as error:
            print(error)
    """
    assert output(program).count("pip install 'procflow[threads]'") == 2


def test_processors_are_shared_out() -> None:
    shares = [Setup(2, cpu_affinity=True).cpus(slot) for slot in range(2)]
    assert sorted({cpu for share in shares for cpu in share}) == ALLOWED
    assert Setup(1, cpu_affinity=True).cpus(0) == ALLOWED
    many = len(ALLOWED) + 1
    assert [Setup(many, cpu_affinity=True).cpus(slot) for slot in range(many)] == [
        [cpu] for cpu in (*ALLOWED, ALLOWED[0])
    ]
    assert Setup(1).cpus(0) == []


def test_a_worker_is_bound_to_its_processors(open_local: Open) -> None:
    with open_local(1, cpu_affinity=[[ALLOWED[-1]]]) as pool:
        assert pool.apply(w.processors) == [ALLOWED[-1]]
    assert sorted(os.sched_getaffinity(0)) == ALLOWED


# -- worker_context= ----


def test_a_worker_is_in_its_context(open_own: Open, tmp_path: Path) -> None:
    path = tmp_path / "log"
    with open_own(1, initializer=w.f.note, initargs=(path, "init"), worker_context=partial(w.Context, path)) as pool:
        pid = pool.apply(w.f.pid)
        assert lines(path) == ["init", f"enter {pid}"]
    assert lines(path) == ["init", f"enter {pid}", f"exit {pid}"]


def test_a_context_can_be_a_closure_and_comes_after_the_initializer(open_own: Open) -> None:
    value = 2
    with open_own(1, initializer=w.f.remember, initargs=(1,), worker_context=lambda: w.holding(value)) as pool:
        assert pool.apply(w.f.recall) == [1, 2]


def test_every_worker_has_a_context_and_leaves_it_when_it_is_replaced(open_local: Open, tmp_path: Path) -> None:
    path = tmp_path / "log"
    with open_local(1, maxtasksperchild=1, worker_context=partial(w.Context, path)) as pool:
        told = [(pool.apply(w.f.pid), pool.apply(w.task).worker) for _ in range(2)]
    log = lines(path)
    assert [slot for _, slot in told] == [0, 0]
    assert len({pid for pid, _ in told}) == 2
    for pid, _ in told:
        assert log.index(f"enter {pid}") < log.index(f"exit {pid}")


def test_a_worker_that_exits_leaves_its_context(open_local: Open, tmp_path: Path) -> None:
    path = tmp_path / "log"
    with open_local(1, worker_context=partial(w.Context, path)) as pool:
        pid = pool.apply(w.f.pid)
        assert isinstance(pool.submit(w.leave).exception(DEADLOCK), procflow.WorkerDied)
        wait_until(lambda: f"exit {pid}" in lines(path))


def test_a_worker_that_is_killed_does_not_leave_its_context(open_local: Open, tmp_path: Path) -> None:
    path = tmp_path / "log"
    pool = open_local(1, worker_context=partial(w.Context, path))
    pid = pool.apply(w.f.pid)
    pool.terminate()
    join(pool)
    assert lines(path) == [f"enter {pid}"]


def test_the_serial_engine_leaves_the_context_also_when_it_is_terminated(tmp_path: Path) -> None:
    path = tmp_path / "log"
    pool = procflow.Pool(engine="serial", worker_context=partial(w.Context, path))
    pool.apply(w.f.pid)
    pool.terminate()
    join(pool)
    assert lines(path) == [f"enter {os.getpid()}", f"exit {os.getpid()}"]


def test_a_context_that_can_not_be_entered_fails_as_an_initializer_does(open_own: Open, tmp_path: Path) -> None:
    with open_own(1, worker_context=partial(w.Context, tmp_path / "log", fails_at="enter")) as pool:
        error = pool.submit(w.f.pid).exception(DEADLOCK)
    assert isinstance(error, procflow.InitializerError)
    assert "worker_context raised" in str(error)
    assert "no way in" in str(error)


def test_what_leaving_a_context_raises_is_shown_and_fails_nothing(
    open_own: Open, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with open_own(1, worker_context=partial(w.Context, tmp_path / "log", fails_at="exit")) as pool:
        assert pool.map(w.f.double, [1, 2]) == [2, 4]
    assert "no way out" in capfd.readouterr().err


# -- preload= ----


def test_a_preloaded_module_is_imported_once_for_all_workers(tmp_path: Path) -> None:
    (tmp_path / "preloaded.py").write_text("import os\nKEPT = os.getpid()")
    program = f"""
    import sys
    sys.path.insert(0, {str(tmp_path)!r})
    import procflow
    from procflow.start.server import the_server
    from tests.contract import functions_workers as w
    with procflow.get_context("forkserver").Pool(1, maxtasksperchild=1, preload=["preloaded"]) as pool:
        (first, one), (second, other) = [pool.apply(w.kept_at_import, ("preloaded",)) for _ in range(2)]
        print(first == second == the_server.pid, one != other)
    """
    assert output(program) == "True True\n"


# -- what is refused ----


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"env": 3}, TypeError),
        ({"env": "A=1"}, TypeError),
        ({"env": {"A": 1}}, TypeError),
        ({"env": {1: "A"}}, TypeError),
        ({"env": {"A=B": "1"}}, ValueError),
        ({"env": {"": "1"}}, ValueError),
        ({"env": {"A": "1\0"}}, ValueError),
        ({"env": [{}]}, ValueError),
        ({"env": [{}, {}, {}]}, ValueError),
        ({"env": [{}, {"A": 1}]}, TypeError),
        ({"env": lambda slot: None}, TypeError),
        ({"threads_per_worker": 0}, ValueError),
        ({"threads_per_worker": "1"}, ValueError),
        ({"threads_per_worker": True}, ValueError),
        ({"cpu_affinity": 1}, TypeError),
        ({"cpu_affinity": "01"}, TypeError),
        ({"cpu_affinity": [[], []]}, TypeError),
        ({"cpu_affinity": [ALLOWED[0], "1"]}, TypeError),
        ({"cpu_affinity": [ALLOWED[0], None]}, TypeError),
        ({"cpu_affinity": [ALLOWED[0]]}, ValueError),
        ({"cpu_affinity": [ALLOWED[0], max(ALLOWED) + 1]}, ValueError),
        ({"worker_context": 3}, TypeError),
        ({"worker_context": w.holding(1)}, TypeError),
        ({"preload": "numpy"}, TypeError),
        ({"preload": ["numpy", 1]}, TypeError),
        ({"preload": ["not a name"]}, ValueError),
        ({"seed": -1}, ValueError),
        ({"seed": 1.5}, TypeError),
        ({"seed": "1"}, TypeError),
    ],
)
@pytest.mark.parametrize("engine", ["serial", "local"])
def test_wrong_options_are_refused(wrong: dict[str, Any], error: type[Exception], engine: Any) -> None:
    option = next(iter(wrong))
    if engine == "serial" and option in SerialEngine.refuses:
        error = ValueError  # whatever its value
    with pytest.raises(error, match=option):
        procflow.Pool(2, engine=engine, **wrong)


@pytest.mark.parametrize("option", [{"env": {"A": "1"}}, {"threads_per_worker": 1}, {"cpu_affinity": True}])
def test_the_serial_engine_says_what_it_has_not(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(option))}.*engine='local'"):
        procflow.Pool(2, engine="serial", **option)


@pytest.mark.parametrize(
    "option",
    [
        {"env": [{}, {"A": "1"}, {}]},
        {"threads_per_worker": 1},
        {"cpu_affinity": True},
        {"worker_context": lambda: w.holding(1)},
        {"preload": ["numpy"]},
        {"maxtasksperchild": 3},
        {"max_memory_per_worker": 10**9},
        {"start_timeout": 3.0},
        {"context": procflow.get_context("spawn")},
    ],
)
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_what_a_cluster_does_not_do_is_refused_with_the_reason(
    cluster: str, option: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    engine = request.getfixturevalue(cluster)
    with pytest.raises(ValueError, match=f"{next(iter(option))}= can't be had on <.*Engine .*not this pool's own"):
        procflow.Pool(engine=engine, **option)


@pytest.mark.parametrize("open_it", [procflow.PoolExecutor, procflow.get_context("fork").Pool])
def test_an_unknown_option_is_refused(open_it: Any) -> None:
    with pytest.raises(TypeError, match="enf"):
        open_it(1, enf={})


def test_an_executor_and_a_context_take_the_options_too(tmp_path: Path) -> None:
    path = tmp_path / "log"
    options: dict[str, Any] = {"env": {NAME: "5"}, "seed": 4, "worker_context": partial(w.Context, path)}
    with procflow.PoolExecutor(1, **options) as executor:
        assert executor.submit(w.variable, NAME).result(DEADLOCK) == "5"
        seeds = list(executor.map(w.seed, range(3)))  # its second call
    with procflow.get_context("spawn").Pool(1, **options) as pool:
        assert pool.apply(w.variable, (NAME,)) == "5"
        assert pool.map(w.seed, range(3)) == seeds
    assert len(lines(path)) == 4
