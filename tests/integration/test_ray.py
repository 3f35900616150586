"""Pools on a Ray cluster: a real head with its raylet and workers on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import procflow
from tests.clusters import PATH, needs, wait_for_slots
from tests.integration import targets_clusters as t
from tests.support import DEADLOCK, wait_until

needs("ray")

from procflow.engines import RayEngine  # noqa: E402


def begun(path: Path) -> int:
    """Wait until a task has begun, and return its worker's pid."""
    wait_until(lambda: path.exists() and path.read_text(), "the beginning of a task")
    return int(path.read_text())


def test_a_worker_that_is_killed_fails_its_task_and_no_other(ray: RayEngine, tmp_path: Path) -> None:
    with procflow.Pool(engine=ray) as pool:
        wait_for_slots(pool, 2)
        victim, other = [pool.submit(t.tell_and_wait_for, tmp_path / str(n), tmp_path / "gate") for n in range(2)]
        begun(tmp_path / "1")
        os.kill(begun(tmp_path / "0"), signal.SIGKILL)
        died = victim.exception(DEADLOCK)
        assert isinstance(died, procflow.WorkerDied)
        assert (died.task, died.started) == (0, True)
        assert "WorkerCrashedError" in str(died)
        (tmp_path / "gate").touch()
        assert other.result(DEADLOCK) == tmp_path / "gate"
        assert pool.map(t.double, range(20)) == list(range(0, 40, 2))


def test_a_death_may_be_outlived(ray: RayEngine, tmp_path: Path) -> None:
    with procflow.Pool(engine=ray) as pool:
        view = pool.options(retries=1, retry_on=procflow.WorkerDied)
        assert view.submit(t.die_once, tmp_path / "died").result(DEADLOCK) == "survived"
        error = pool.options(retries=1).submit(t.die).exception(DEADLOCK)
        assert isinstance(error, procflow.WorkerDied)


def test_an_array_crosses_in_both_directions(ray: RayEngine) -> None:
    import numpy

    with procflow.Pool(engine=ray) as pool:
        assert pool.map(t.sum_of, [numpy.ones(n) for n in (10, 100_000)]) == [10.0, 100_000.0]
        made = pool.apply(t.ones, (100_000,))
        made += 1  # it can be written
        assert made.sum() == 200_000


GROWS = """
import sys
import ray
from procflow import EngineError, Pool
from procflow.engines import RayEngine
from ray.cluster_utils import Cluster
from tests.integration import targets_clusters as t

options = {"object_store_memory": 200_000_000, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "temp_dir": sys.argv[1], **options})
engine = RayEngine(cluster.address, configure_logging=False, log_to_driver=False)
with Pool(engine=engine) as pool:
    mapped = pool.map_async(t.double, range(100))
    assert pool._core.scheduler.processes == 0
    cluster.add_node(num_cpus=1, object_store_memory=200_000_000)
    print(sum(mapped.result(60)))
assert not ray.is_initialized()  # the pool has made the connection
cluster.shutdown()
"""


@pytest.mark.slow
def test_tasks_wait_for_cpus_and_the_pool_grows_with_the_cluster() -> None:
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as directory:
        done = subprocess.run(
            [sys.executable, "-c", GROWS, directory],
            env={**os.environ, "PYTHONPATH": PATH, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert done.stdout.split()[-1:] == ["9900"], done.stderr[-3000:]
