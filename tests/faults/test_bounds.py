"""Bounds: whatever comes in, only so much of it is held, and every stream can end."""

from __future__ import annotations

import itertools
import os
import resource
import threading
from collections.abc import Iterator

import pytest

import procflow
from tests.faults import tasks
from tests.support import DEADLOCK, open_fds, wait_until


class Endless:
    """An endless input that knows how far it was read."""

    def __init__(self) -> None:
        self.read = 0

    def __iter__(self) -> Iterator[int]:
        for n in itertools.count():
            self.read = n + 1
            yield n


def join(pool: procflow.Pool) -> None:
    joiner = threading.Thread(target=pool.join, daemon=True)
    joiner.start()
    joiner.join(DEADLOCK)
    assert not joiner.is_alive(), repr(pool)


@pytest.mark.parametrize("order", ["imap", "imap_unordered"])
def test_an_endless_input_is_read_no_further_than_its_buffer(order: str, ctx: procflow.Context) -> None:
    endless = Endless()
    with ctx.Pool(2) as pool:
        stream = getattr(pool, order)(tasks.double, endless, buffersize=50)
        for taken in range(1, 500):
            next(stream)
            assert endless.read <= taken + 50


def test_leaving_the_with_block_ends_its_streams(ctx: procflow.Context) -> None:
    endless = Endless()
    with ctx.Pool(2) as pool:
        streams = [pool.imap(tasks.double, endless), pool.imap_unordered(tasks.double, range(10**9))]
        assert next(streams[0]) == 0
    for stream in streams:
        with pytest.raises(procflow.PoolClosed):
            for _ in range(10_000):
                next(stream)


def test_close_and_join_end_though_an_endless_stream_was_half_read(ctx: procflow.Context) -> None:
    pool = ctx.Pool(2)
    stream = pool.imap(tasks.double, itertools.count())
    assert [next(stream) for _ in range(3)] == [0, 2, 4]
    pool.close()
    join(pool)
    rest: list[int] = []
    with pytest.raises(procflow.PoolClosed, match="read no more"):
        rest.extend(itertools.chain.from_iterable([n] for n in stream))
    assert len(rest) > 1000
    assert rest == [2 * n for n in range(3, 3 + len(rest))]


def test_close_and_join_leave_the_results_of_a_finite_stream(ctx: procflow.Context) -> None:
    pool = ctx.Pool(2)
    streams = [pool.imap(tasks.double, (n for n in range(20_000))), pool.imap(tasks.double, range(20_000))]
    assert [next(stream) for stream in streams] == [0, 0]
    pool.close()
    join(pool)
    for stream in streams:
        assert list(stream) == [2 * n for n in range(1, 20_000)]


def test_an_input_that_blocks_keeps_neither_terminate_nor_its_results(ctx: procflow.Context) -> None:
    gate = threading.Event()

    def blocking() -> Iterator[int]:
        yield 1
        gate.wait(DEADLOCK)

    pool = ctx.Pool(2)
    stream = pool.imap(tasks.double, blocking())
    assert stream.next(DEADLOCK) == 2
    pool.terminate()
    join(pool)
    gate.set()
    wait_until(lambda: all(thread.name != "procflow-feeder" for thread in threading.enumerate()), "the feeder's end")


def test_futures_that_nobody_holds_are_run(ctx: procflow.Context) -> None:
    with ctx.Pool(2) as pool:
        for n in range(500):
            pool.submit(tasks.double, n)
        assert pool.submit(tasks.double, 1).result(DEADLOCK) == 2


def test_workers_that_are_replaced_after_each_task_lose_none(ctx: procflow.Context) -> None:
    with ctx.Pool(2, maxtasksperchild=1) as pool:
        assert pool.map(tasks.double, range(40), 1) == [2 * n for n in range(40)]


@pytest.mark.slow
@pytest.mark.parametrize("order", ["imap", "imap_unordered"])
def test_a_million_items_come_back_and_are_not_all_read_at_once(order: str, ctx: procflow.Context) -> None:
    count = 1_000_000
    endless = Endless()
    total = furthest = 0
    with ctx.Pool(2) as pool:
        for taken, value in enumerate(getattr(pool, order)(tasks.double, itertools.islice(endless, count))):
            total += value
            furthest = max(furthest, endless.read - taken)
        assert pool.map(tasks.double, range(count)) == list(range(0, 2 * count, 2))
    assert total == count * (count - 1)
    assert furthest < count / 4  # AHEAD, and the part of a packet that the consumer has begun


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_pools_one_after_the_other_leak_nothing(method: str, ctx: procflow.Context) -> None:
    """What they leave behind is looked for after each test; here only that it does not grow. POOLS=1000: so many."""
    pools = int(os.environ.get("POOLS") or {"fork": 200, "forkserver": 200, "spawn": 50}[method])
    for _ in range(20):
        with ctx.Pool(1) as pool:
            pool.apply(tasks.double, (1,))
    fds, before = open_fds(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for n in range(pools):
        with ctx.Pool(1) as pool:
            assert pool.apply(tasks.double, (n,)) == 2 * n
    assert len(open_fds()) <= len(fds)
    assert threading.active_count() <= 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000  # KiB
