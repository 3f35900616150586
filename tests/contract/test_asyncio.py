"""What a pool promises to asyncio: results without blocking the loop, and the loop does the pool's work itself."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

import procflow
from tests.contract import functions as f
from tests.contract.conftest import Open, end
from tests.support import DEADLOCK, open_fds

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run it in a loop of its own, and fail rather than hang."""
    return asyncio.run(asyncio.wait_for(main, DEADLOCK))


async def until(fact: Any) -> None:
    """Wait for a fact that nothing announces, without blocking the loop."""
    while not fact():
        await asyncio.sleep(0.002)


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> Iterator[procflow.Pool]:
    """A pool of one worker."""
    yield from end(procflow.Pool(1, context=procflow.get_context("fork")))


# -- on every engine ----


def test_a_call_may_be_awaited(pool: procflow.Pool) -> None:
    async def main() -> None:
        for number in range(20):
            assert await pool.submit(f.double, number) == 2 * number
        with pytest.raises(ValueError, match="7"):
            await pool.submit(f.fail, 7)
        assert await pool.map_async(f.double, range(100)) == list(range(0, 200, 2))

    run(main())


def test_many_coroutines_may_await_calls(pool: procflow.Pool) -> None:
    async def call(number: int) -> int:
        return await pool.submit(f.double, number)

    async def main() -> list[int]:
        return await asyncio.gather(*[call(number) for number in range(200)])

    assert run(main()) == list(range(0, 400, 2))


@pytest.mark.parametrize("ordered", [True, False], ids=["imap", "imap_unordered"])
@pytest.mark.parametrize("lazy", [True, False], ids=["generator", "range"])
def test_a_stream_may_be_read_by_async_for(pool: procflow.Pool, ordered: bool, lazy: bool) -> None:
    numbers = (number for number in range(500)) if lazy else range(500)

    async def main() -> list[int]:
        stream = (pool.imap if ordered else pool.imap_unordered)(f.double, numbers)
        return [result async for result in stream]

    results = run(main())
    assert (results if ordered else sorted(results)) == list(range(0, 1000, 2))


def test_a_stream_that_is_read_by_async_for_goes_on_after_a_failure(pool: procflow.Pool) -> None:
    async def main() -> list[object]:
        stream, got = pool.imap(f.odd_fails, range(6)), list[object]()
        while True:
            try:
                got.append(await anext(stream))
            except StopAsyncIteration:
                return got
            except ValueError as error:
                got.append(str(error))

    assert run(main()) == [0, "1", 2, "3", 4, "5"]


# -- on processes ----


def test_the_loop_goes_on_while_tasks_run(workers: procflow.Pool, tmp_path: Path) -> None:
    async def main() -> None:
        future = workers.submit(f.wait_for, str(tmp_path / "gate"))
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while beats < 100:
                beats += 1
                await asyncio.sleep(0)
            (tmp_path / "gate").touch()

        async def read() -> int:
            return len([result async for result in workers.imap(f.wait_for, [str(tmp_path / "gate")])])

        _, one, _ = await asyncio.gather(beat(), read(), future)
        assert one == 1
        assert beats == 100

    run(main())


def test_a_loop_that_computes_holds_nothing_up(workers: procflow.Pool, tmp_path: Path) -> None:
    async def main() -> None:
        future = workers.submit(f.wait_for, str(tmp_path / "gate"))
        there = threading.Event()
        future.add_done_callback(lambda _: there.set())
        waiting = asyncio.ensure_future(_await(future))
        await asyncio.sleep(0)  # it waits now, and its loop has promised to look
        (tmp_path / "gate").touch()
        assert there.wait(DEADLOCK)  # blocks the loop
        await waiting

    run(main())


async def _await(future: procflow.Future[T]) -> T:
    return await future


def test_giving_up_an_await_loses_nothing(workers: procflow.Pool, tmp_path: Path) -> None:
    async def main() -> None:
        future = workers.submit(f.wait_for, str(tmp_path / "gate"))
        stream = workers.imap(f.wait_for, [str(tmp_path / "gate")])
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(_await(future), 0.01)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 0.01)
        (tmp_path / "gate").touch()
        await future
        assert len([result async for result in stream]) == 1

    run(main())


def test_a_stream_that_takes_too_long_is_ended(workers: procflow.Pool, tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(procflow.TimeoutError, match="so it was ended"):
            async for _ in workers.imap(f.wait_for, [str(tmp_path / "never")], timeout=0.05):
                pass

    run(main())


def test_a_worker_that_dies_fails_the_await(workers: procflow.Pool) -> None:
    async def main() -> int:
        with pytest.raises(procflow.WorkerDied):
            await workers.submit(os._exit, 3)
        return await workers.submit(f.double, 4)

    assert run(main()) == 8


def test_a_pool_that_another_thread_terminates_fails_the_await(workers: procflow.Pool, tmp_path: Path) -> None:
    async def main() -> None:
        future = workers.submit(f.wait_for, str(tmp_path / "never"))
        stream = workers.imap(f.wait_for, [str(tmp_path / "never")])
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        await asyncio.gather(asyncio.to_thread(workers.terminate), _closed(future), _closed(reading))

    run(main())


async def _closed(waited: Any) -> None:
    with pytest.raises(procflow.PoolClosed):
        await waited


def test_several_loops_and_threads_may_share_a_pool(workers: procflow.Pool) -> None:
    async def main(base: int) -> list[int]:
        singles = [await workers.submit(f.double, base + number) for number in range(50)]
        return singles + [result async for result in workers.imap(f.double, range(base, base + 50))]

    results: dict[int, list[int]] = {}

    def in_loop(base: int) -> None:
        results[base] = run(main(base))

    threads = [threading.Thread(target=in_loop, args=(base,), daemon=True) for base in (0, 1000, 2000)]
    for thread in threads:
        thread.start()
    for number in range(50):
        assert workers.apply(f.double, (number,)) == 2 * number
    for thread in threads:
        thread.join(DEADLOCK)
    assert results == {base: 2 * list(range(2 * base, 2 * base + 100, 2)) for base in (0, 1000, 2000)}


def test_one_pool_serves_one_loop_after_the_other(workers: procflow.Pool) -> None:
    for _ in range(5):
        assert run(_await(workers.submit(f.double, 4))) == 8


# -- how ----


def test_the_loop_itself_does_the_work(open_local: Open) -> None:
    served = 0
    with open_local(1) as pool:
        if pool._core.engine.fileno() is None:
            pytest.skip("this variant has no descriptor that a loop could watch")

        def note(_: object) -> None:
            nonlocal served
            served += threading.get_ident() == threading.main_thread().ident

        async def main() -> None:
            while not served:  # the background thread is quicker now and then, on a loaded machine
                future = pool.submit(f.double, 1)
                future.add_done_callback(note)
                await future

        run(main())


def test_the_loop_watches_nothing_when_nobody_waits(forked: procflow.Pool) -> None:
    async def main() -> None:
        before = len(open_fds())
        await forked.submit(f.double, 1)
        await until(lambda: len(open_fds()) == before)
        assert await forked.submit(f.double, 2) == 4

    forked.apply(f.double, (1,))
    run(main())


def test_a_pool_may_end_while_the_loop_still_watches(forked: procflow.Pool, tmp_path: Path) -> None:
    async def main() -> None:
        before = len(open_fds())
        with procflow.Pool(1, context=procflow.get_context("fork")) as pool:
            await pool.submit(f.double, 1)
        await until(lambda: len(open_fds()) <= before)
        reader, writer = os.pipe()
        try:
            asyncio.get_running_loop().add_reader(reader, lambda: None)  # this may get a number that it had watched
            asyncio.get_running_loop().remove_reader(reader)
        finally:
            os.close(reader)
            os.close(writer)
        assert await forked.submit(f.double, 2) == 4

    forked.apply(f.double, (1,))
    run(main())
