"""Executors and clusters for the tests: real ones, of processes of their own on this machine.

Those that all tests of an engine share are fixtures, by the names in CLUSTERS; each gives an engine for
`Pool(engine=)`. Clusters stay for the whole session, an executor for a module: others look at the threads, children
and descriptors of this process. What a test kills it starts for itself.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import procflow
from tests.support import DEADLOCK, wait_until

CLUSTERS = ["futures", "dask", "ray"]
SLOTS = 2
START = 90.0  # seconds: at its first import after its installation, Dask is read from a cold disk, three times
PATH = os.pathsep.join([str(Path(procflow.__file__).parents[1]), str(Path(__file__).parents[1])])


# -- executors ----


@contextmanager
def executor(method: str = "spawn", workers: int = SLOTS) -> Iterator[ProcessPoolExecutor]:
    """An executor whose processes are all there."""
    with (
        ProcessPoolExecutor(workers, multiprocessing.get_context(method)) as made,
        tempfile.TemporaryDirectory() as meeting,
    ):
        for arrived in [made.submit(_arrive, meeting, workers) for _ in range(workers)]:
            arrived.result(DEADLOCK)
        yield made


def _arrive(meeting: str, workers: int) -> None:
    """Come, and wait until all have come."""
    Path(meeting, str(os.getpid())).touch()
    wait_until(lambda: len(os.listdir(meeting)) >= workers, "the other processes")


@pytest.fixture(scope="module")
def futures(servers: None) -> Iterator[Any]:
    from procflow.engines import FuturesEngine

    with executor() as made:
        yield FuturesEngine(made)


# -- processes of a cluster ----


class DaskProcesses:
    """A scheduler and workers of one thread each, on the loopback."""

    def __init__(self, directory: Path, *arguments: str, workers: int = SLOTS, failures: int = 0) -> None:
        self._arguments = arguments
        self._file = directory / "scheduler.json"
        self._log = (directory / "log").open("ab")
        self._environment = {
            **os.environ,
            "PYTHONPATH": PATH,
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(failures),
            "DASK_TEMPORARY_DIRECTORY": str(directory),
        }
        self.workers: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        try:
            for _ in range(workers):
                self.add_worker()
            wait_until(lambda: self._file.exists() and self._file.read_text().endswith("}"), "the scheduler", START)
            self.address: str = json.loads(self._file.read_text())["address"]
        except BaseException:
            self.close()
            raise

    def add_worker(self, python: str = sys.executable, **more: str) -> subprocess.Popen[bytes]:
        """Start a worker; it waits for the scheduler."""
        worker = self._start(
            "dask_worker", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1",
            python=python, **more,
        )  # fmt: skip
        self.workers.append(worker)
        return worker

    def _start(self, program: str, *arguments: str, python: str = sys.executable, **more: str) -> Any:
        return subprocess.Popen(
            [python, "-m", f"distributed.cli.{program}", "--scheduler-file", str(self._file), *arguments,
             *self._arguments],
            env={**self._environment, **more},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )  # fmt: skip

    def close(self) -> None:
        """End them all."""
        for process in [*self.workers, self.scheduler]:
            process.kill()
            process.wait(DEADLOCK)
        self._log.close()


@contextmanager
def dask_processes(directory: Path, *arguments: str, workers: int = SLOTS, failures: int = 0) -> Iterator[Any]:
    made = DaskProcesses(directory, *arguments, workers=workers, failures=failures)
    try:
        yield made
    finally:
        made.close()


def other_python() -> str:
    """Return an interpreter of another minor version than this one; skip if there is none."""
    found = [os.environ.get("PROCFLOW_OTHER_PYTHON", "")]
    found += [shutil.which(f"python3.{minor}") or "" for minor in range(11, 16) if minor != sys.version_info[1]]
    ask = "import sys; print(sys.version_info[:2])"
    for python in found:
        if python and subprocess.run(
            [python, "-c", ask], capture_output=True, text=True, check=False
        ).stdout.strip() not in (
            "",
            str(sys.version_info[:2]),
        ):
            return python
    pytest.skip("there is no other Python (PROCFLOW_OTHER_PYTHON may name one)")


def needs(module: str) -> None:
    """Skip where an extra is not installed."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed", allow_module_level=True)


@pytest.fixture(scope="session")
def dask(servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    needs("distributed")
    from procflow.engines import DaskEngine

    with dask_processes(tmp_path_factory.mktemp("dask")) as made:
        engine = DaskEngine(made.address)
        with procflow.Pool(engine=engine) as pool:
            wait_for_slots(pool, SLOTS)
        yield engine


def wait_for_slots(pool: procflow.Pool, slots: int) -> None:
    """Wait until the pool has so many workers. A pool that has nothing to do does not look for them."""
    scheduler = pool._core.scheduler
    wait_until(lambda: pool.apply(os.getpid) and scheduler.processes == slots, f"{slots} slots", START)


# -- Ray ----


@contextmanager
def ray_head(cpus: int = SLOTS) -> Iterator[None]:
    """Connect this process to a head of its own, which ends with it."""
    import ray

    with (
        tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as directory,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("PYTHONPATH", PATH)
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(
            num_cpus=cpus,
            object_store_memory=200_000_000,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            _temp_dir=directory,  # short, as it holds sockets
        )
        try:
            yield
        finally:
            _shut_down_ray()


def _shut_down_ray() -> None:
    """Ray asks its head for leave, without a limit, and was seen to wait for ever: then the head is killed."""
    import ray

    leaving = threading.Thread(target=ray.shutdown, daemon=True)
    leaving.start()
    leaving.join(DEADLOCK)
    if leaving.is_alive():
        for process in psutil.Process().children(recursive=True):
            if process.name() in ("gcs_server", "raylet"):
                process.kill()
        leaving.join(DEADLOCK)
        assert not leaving.is_alive(), "ray.shutdown() hangs"


@pytest.fixture(scope="session")
def ray(servers: None) -> Iterator[Any]:
    needs("ray")
    from procflow.engines import RayEngine

    with ray_head():
        engine = RayEngine()
        with procflow.Pool(engine=engine) as pool:
            pool.map(os.getenv, ["HOME"] * 8, 1)  # its workers are started
        yield engine
