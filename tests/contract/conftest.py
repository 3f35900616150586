"""Pools of every engine and start method, for the tests of what all of them promise."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

import procflow
from tests.clusters import CLUSTERS
from tests.support import DEADLOCK

LOCAL = ["fork", "forkserver", "spawn", "portable"]

Open = Callable[..., procflow.Pool]


def opener(kind: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Open:
    """Return `Pool` with its engine and context filled in."""
    if kind in CLUSTERS:
        return partial(procflow.Pool, engine=request.getfixturevalue(kind))
    if kind == "serial":
        return partial(procflow.Pool, engine="serial")
    if kind == "portable":
        monkeypatch.setenv("PROCFLOW_PORTABLE", "1")
        return partial(procflow.Pool, context=procflow.get_context("fork"))
    return partial(procflow.Pool, context=procflow.get_context(kind))


@pytest.fixture(params=["serial", *LOCAL, *CLUSTERS])
def open_pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Open a pool of any engine."""
    return opener(request.param, monkeypatch, request)


@pytest.fixture(params=["serial", *LOCAL])
def open_own(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Open a pool whose workers nobody else has."""
    return opener(request.param, monkeypatch, request)


@pytest.fixture(params=[*LOCAL, *CLUSTERS])
def open_elsewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Open a pool of an engine whose workers are other processes."""
    return opener(request.param, monkeypatch, request)


@pytest.fixture(params=LOCAL)
def open_local(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Open a pool of worker processes."""
    return opener(request.param, monkeypatch, request)


@pytest.fixture
def pool(open_pool: Open) -> Iterator[procflow.Pool]:
    yield from end(open_pool(2))


@pytest.fixture
def own(open_own: Open) -> Iterator[procflow.Pool]:
    """A pool whose workers nobody else has."""
    yield from end(open_own(2))


@pytest.fixture
def elsewhere(open_elsewhere: Open) -> Iterator[procflow.Pool]:
    """A pool whose tasks run in two other processes."""
    yield from end(open_elsewhere(2))


@pytest.fixture
def workers(open_local: Open) -> Iterator[procflow.Pool]:
    """A pool of two worker processes."""
    yield from end(open_local(2))


def end(pool: procflow.Pool) -> Iterator[procflow.Pool]:
    try:
        yield pool
    finally:
        pool.terminate()
        join(pool)


def join(pool: procflow.Pool) -> None:
    """Join, and fail rather than hang."""
    joiner = threading.Thread(target=pool.join, daemon=True)
    joiner.start()
    joiner.join(DEADLOCK)
    assert not joiner.is_alive(), f"join() hangs: {pool!r}"
