from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

import procflow
from tests.clusters import CLUSTERS, dask, futures, ray
from tests.support import Leftovers

__all__ = ["dask", "futures", "ray"]

METHODS = ["fork", "spawn", "forkserver"]
# What the contract tests run on every engine does nothing on these that depends on the Python.
LIKE_OTHERS = {"spawn", "portable", "futures"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs on Dask and Ray: their clients' threads don't survive a fork, and other tests fork."""
    for item in items:
        parameters = {str(parameter) for parameter in _parameters(item)}
        if "contract" in item.path.parts and parameters & LIKE_OTHERS:
            item.add_marker("slow")
        names = {*getattr(item, "fixturenames", ()), *parameters, item.path.stem.removeprefix("test_")}
        if names & {"dask", "ray"}:
            item.add_marker("clusters")
    items.sort(key=lambda item: "ray" in item.fixturenames or "ray" in _parameters(item))  # it adds to what others see


@pytest.fixture(scope="session")
def servers() -> None:
    """Start what a process starts once and keeps: the fork server, and multiprocessing's resource tracker."""
    for method in METHODS:
        with procflow.get_context(method).Pool(1) as pool:
            pool.apply(abs, (1,))
    process = procflow.Process(target=abs, args=(1,))
    process.start()
    process.join()
    process.close()


@pytest.fixture(scope="module", autouse=True)
def frozen(servers: None) -> None:
    """Let the collections around each test not look at what was made until now: with SciPy imported they take 0.1 s."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest, servers: None) -> Iterator[None]:
    """No test leaves a process, descriptor, thread or piece of shared memory behind."""
    if "unit" in str(request.path):
        yield
        return
    for kind in CLUSTERS:
        if kind in request.fixturenames or kind in _parameters(request.node):
            request.getfixturevalue(kind)  # what it starts is there before
            if kind == "ray":  # which starts and ends processes, threads and connections as it likes
                yield
                return
    before = Leftovers()
    yield
    before.check()


def _parameters(test: pytest.Item) -> list[object]:
    called = getattr(test, "callspec", None)
    return [] if called is None else list(called.params.values())


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ctx(method: str) -> procflow.Context:
    return procflow.get_context(method)
