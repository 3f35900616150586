"""Pools of every engine and start method, for the tests of what all of them promise."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

import procflow
from tests.support import DEADLOCK

LOCAL = ["fork", "forkserver", "spawn", "portable"]

Open = Callable[..., procflow.Pool]


def opener(kind: str, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Return `Pool` with its engine and context filled in."""
    if kind == "serial":
        return partial(procflow.Pool, engine="serial")
    if kind == "portable":
        monkeypatch.setenv("PROCFLOW_PORTABLE", "1")
        return partial(procflow.Pool, context=procflow.get_context("fork"))
    return partial(procflow.Pool, context=procflow.get_context(kind))


@pytest.fixture(params=["serial", *LOCAL])
def open_pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Open a pool of any engine."""
    return opener(request.param, monkeypatch)


@pytest.fixture(params=LOCAL)
def open_local(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Open a pool of worker processes."""
    return opener(request.param, monkeypatch)


@pytest.fixture
def pool(open_pool: Open) -> Iterator[procflow.Pool]:
    yield from end(open_pool(2))


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
