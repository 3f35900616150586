"""Pools on a Dask cluster: real schedulers and workers on the loopback, which come, and die."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import procflow
from tests.clusters import PATH, START, DaskProcesses, dask_processes, needs, other_python, wait_for_slots
from tests.integration import targets_clusters as t
from tests.support import DEADLOCK, wait_until

needs("distributed")

from distributed import Client, Security  # noqa: E402

from procflow.engines import DaskEngine  # noqa: E402


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DaskProcesses]:
    with dask_processes(tmp_path) as made:
        yield made


def begun(path: Path) -> int:
    """Wait until a task has begun, and return its worker's pid."""
    wait_until(lambda: path.exists() and path.read_text(), "the beginning of a task")
    return int(path.read_text())


# -- deaths ----


def test_a_worker_that_is_lost_fails_its_task_and_no_other(cluster: DaskProcesses, tmp_path: Path) -> None:
    with procflow.Pool(engine=DaskEngine(cluster.address)) as pool:
        wait_for_slots(pool, 2)
        victim, other = [pool.submit(t.tell_and_wait_for, tmp_path / str(n), tmp_path / "gate") for n in range(2)]
        begun(tmp_path / "1")
        os.kill(begun(tmp_path / "0"), signal.SIGKILL)
        died = victim.exception(DEADLOCK)
        assert isinstance(died, procflow.WorkerDied)
        assert (died.task, died.pid, died.started) == (0, 0, True)
        assert "KilledWorker" in str(died)
        (tmp_path / "gate").touch()
        assert other.result(DEADLOCK) == tmp_path / "gate"
        wait_for_slots(pool, 1)
        assert pool.map(t.double, range(20)) == list(range(0, 40, 2))


@pytest.mark.slow
def test_dask_begins_a_task_again_as_often_as_it_is_configured(tmp_path: Path) -> None:
    with (
        dask_processes(tmp_path, failures=1) as cluster,
        procflow.Pool(engine=DaskEngine(cluster.address)) as pool,
    ):
        wait_for_slots(pool, 2)
        assert pool.submit(t.die_once, tmp_path / "died").result(DEADLOCK) == "survived"


@pytest.mark.slow
def test_a_death_may_be_outlived(cluster: DaskProcesses, tmp_path: Path) -> None:
    with procflow.Pool(engine=DaskEngine(cluster.address)) as pool:
        view = pool.options(retries=1, retry_on=procflow.WorkerDied)
        assert view.submit(t.die_once, tmp_path / "died").result(DEADLOCK) == "survived"


def test_a_scheduler_that_is_killed_fails_all_that_is_pending(cluster: DaskProcesses, tmp_path: Path) -> None:
    with procflow.Pool(engine=DaskEngine(cluster.address)) as pool:
        futures = [pool.submit(t.tell_and_wait_for, tmp_path / str(n), tmp_path / "gate") for n in range(40)]
        mapped = pool.map_async(t.double, range(1000))
        wait_until((tmp_path / "0").exists, "the beginning of a task")
        cluster.scheduler.kill()
        for future in [*futures, mapped]:
            error = future.exception(DEADLOCK)
            assert isinstance(error, procflow.EngineError)
            assert "the pool's Dask cluster is lost" in str(error)
        with pytest.raises(procflow.EngineError):
            pool.submit(t.double, 1)


@pytest.mark.slow
def test_a_scheduler_that_is_killed_fails_what_waits_for_workers(tmp_path: Path) -> None:
    with dask_processes(tmp_path, workers=0) as cluster, procflow.Pool(engine=DaskEngine(cluster.address)) as pool:
        future = pool.submit(t.double, 1)
        cluster.scheduler.kill()
        assert isinstance(future.exception(DEADLOCK), procflow.EngineError)


def test_no_scheduler_is_an_error_of_the_pool() -> None:
    with pytest.raises(procflow.EngineError, match=r"no Dask scheduler at tcp://127\.0\.0\.1:1"):
        procflow.Pool(engine=DaskEngine("tcp://127.0.0.1:1", timeout=0.2))


# -- size ----


def test_tasks_wait_for_workers_and_the_pool_grows_with_the_cluster(tmp_path: Path) -> None:
    with dask_processes(tmp_path, workers=0) as cluster, procflow.Pool(engine=DaskEngine(cluster.address)) as pool:
        mapped, stream = pool.map_async(t.double, range(100)), pool.imap(t.double, iter(range(100)))
        assert not mapped.done()
        assert pool._core.scheduler.processes == 0
        cluster.add_worker()
        assert mapped.result(DEADLOCK) == list(stream) == list(range(0, 200, 2))
        cluster.add_worker()
        wait_for_slots(pool, 2)
        held = [pool.submit(t.tell_and_wait_for, tmp_path / str(n), tmp_path / "gate") for n in range(2)]
        for n in range(2):  # both run
            wait_until((tmp_path / str(n)).exists, "the beginning of a task")
        (tmp_path / "gate").touch()
        assert [future.result(DEADLOCK) for future in held] == [tmp_path / "gate"] * 2


def test_a_pool_may_take_less_than_the_cluster_has(dask: DaskEngine) -> None:
    with procflow.Pool(1, engine=dask) as pool:
        assert pool.map(t.double, range(20)) == list(range(0, 40, 2))
        assert pool._core.scheduler.processes == 1


# -- what crosses ----


def test_what_a_script_defines_crosses_and_comes_back_as_its_own(dask: DaskEngine) -> None:
    done = subprocess.run(
        [sys.executable, t.__file__, dask._address],
        env={**os.environ, "PYTHONPATH": PATH},
        capture_output=True,
        text=True,
        timeout=DEADLOCK,
        check=True,
    )
    assert done.stdout.splitlines() == ["[True, True] [1, 2]", "[2, 3]"]


def test_a_client_or_a_cluster_object_serves_as_well_as_an_address(dask: DaskEngine) -> None:
    with Client(dask._address, set_as_default=False) as client:
        with procflow.Pool(engine=DaskEngine(client)) as pool:
            assert pool.apply(t.double, (2,)) == 4
        assert client.submit(t.double, 3).result(DEADLOCK) == 6  # it is still its owner's


def test_an_array_crosses_in_both_directions(dask: DaskEngine) -> None:
    import numpy

    with procflow.Pool(engine=dask) as pool:
        assert pool.map(t.sum_of, [numpy.ones(n) for n in (10, 100_000)]) == [10.0, 100_000.0]
        made = pool.apply(t.ones, (100_000,))
        made += 1  # it can be written
        assert made.sum() == 200_000


# -- security ----


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    import trustme

    authority = trustme.CA()
    made = authority.issue_cert("localhost", "127.0.0.1")
    directory = tmp_path_factory.mktemp("certificates")
    paths = {name: str(directory / f"{name}.pem") for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(paths["ca"])
    made.private_key_pem.write_to_path(paths["key"])
    for blob in made.cert_chain_pems:
        blob.write_to_path(paths["cert"], append=True)
    return paths


@pytest.mark.slow
def test_a_cluster_with_tls(tmp_path: Path, certificates: dict[str, str]) -> None:
    arguments = ["--protocol", "tls"]
    for name, option in (("ca", "--tls-ca-file"), ("cert", "--tls-cert"), ("key", "--tls-key")):
        arguments += [option, certificates[name]]
    with dask_processes(tmp_path, *arguments, workers=1) as cluster:
        assert cluster.address.startswith("tls://")
        security = Security(
            tls_ca_file=certificates["ca"],
            tls_client_cert=certificates["cert"],
            tls_client_key=certificates["key"],
            require_encryption=True,
        )
        engine = DaskEngine(cluster.address, security=security)
        with procflow.Pool(engine=engine) as pool:
            assert pool.map(t.double, range(20)) == list(range(0, 40, 2))
        assert certificates["key"] not in repr(engine)
        strangers = Security(tls_ca_file=certificates["ca"])  # who has no certificate
        for wrong in (strangers, None):
            with pytest.raises((procflow.EngineError, TypeError, ssl.SSLError)):
                procflow.Pool(engine=DaskEngine(cluster.address, security=wrong, timeout=1))


# -- another Python ----


pytestmark = pytest.mark.filterwarnings("ignore:Mismatched versions found")  # Dask says so, too


def foreign_worker(cluster: DaskProcesses) -> None:
    """Add a worker of another Python, with this one's pure packages."""
    packages = [path for path in sys.path if path.endswith("site-packages")]
    cluster.add_worker(other_python(), PYTHONPATH=os.pathsep.join([PATH, *packages]), PYTHONSAFEPATH="1")


@pytest.mark.slow
def test_a_cluster_with_another_python_is_refused(tmp_path: Path) -> None:
    with dask_processes(tmp_path, workers=0) as cluster:
        foreign_worker(cluster)
        with Client(cluster.address, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=DEADLOCK)
        with pytest.raises(procflow.EngineError, match=r"it has Python 3.*Functions travel as bytecode"):
            procflow.Pool(engine=DaskEngine(cluster.address))


@pytest.mark.slow
def test_a_worker_of_another_python_that_comes_later_gets_no_task(tmp_path: Path) -> None:
    with dask_processes(tmp_path, workers=1) as cluster, procflow.Pool(engine=DaskEngine(cluster.address)) as pool:
        wait_for_slots(pool, 1)
        foreign_worker(cluster)
        engine = pool._core.engine
        assert isinstance(engine, DaskEngine)
        wait_until(lambda: pool.map(t.double, range(50), 1) and len(engine._faults) == 2, "its arrival")
        assert len(set(pool.map(t.pid, range(50), 1))) == 1
        assert pool._core.scheduler.processes == 1


def test_a_worker_that_was_announced_to_nobody_is_found_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DaskEngine, "_note", lambda *_: None)
    with dask_processes(tmp_path, workers=0) as cluster, procflow.Pool(engine=DaskEngine(cluster.address)) as pool:
        waiting = pool.submit(t.double, 21)
        cluster.add_worker()
        assert waiting.result(START) == 42
        cluster.add_worker()
        wait_for_slots(pool, 2)


def test_a_task_that_reaches_another_python_all_the_same_is_not_read_there() -> None:
    """The last line of defence: what the worker itself does."""
    from procflow.engines.remote import refused
    from procflow.worker.remote import run_packet

    answer = run_packet(b"garbage", 0, (("3.2", procflow.__version__), "pool", 1, b"garbage"))
    assert "the pool Python 3.2 " in refused(answer)


def test_signals_are_left_alone(dask: DaskEngine) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with procflow.Pool(engine=dask) as pool:
        assert pool.apply(t.double, (2,)) == 4
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
