"""Connections in asyncio, and wait() over connections, processes and futures together, under each start method."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from typing import Any

import pytest

from procflow.connection import Pipe, wait
from tests.integration import targets_channels as targets
from tests.support import DEADLOCK, open_fds


def test_a_coroutine_sends_and_receives(ctx: Any) -> None:
    async def main() -> list[int]:
        got = []
        for number in range(5):
            await ours.asend(number)
            got.append(await ours.arecv())
        return got

    ours, theirs = Pipe()
    with ctx.Process(target=targets.doubles, args=(theirs,)) as process:
        theirs.close()
        with ours:
            assert asyncio.run(asyncio.wait_for(main(), DEADLOCK)) == [0, 2, 4, 6, 8]
        process.join(DEADLOCK)
        assert process.exitcode == 0


def test_async_iteration_ends_when_the_peer_dies_although_its_end_is_still_open_here(ctx: Any) -> None:
    async def main() -> list[str]:
        return [message async for message in ours]

    ours, theirs = Pipe()
    with ours, theirs, ctx.Process(target=targets.sends_and_dies, args=(theirs,)):
        assert asyncio.run(asyncio.wait_for(main(), DEADLOCK)) == ["last words"]


def test_a_large_message_comes_in_parts_while_the_loop_runs_on(ctx: Any) -> None:
    async def main() -> tuple[int, int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        data = await ours.arecv()
        ticking.cancel()
        return len(data), ticks

    ours, theirs = Pipe(duplex=False)
    with ours, ctx.Process(target=targets.sends_large, args=(theirs, 20_000_000)):
        theirs.close()
        length, ticks = asyncio.run(asyncio.wait_for(main(), DEADLOCK))
    assert length == 20_000_000
    assert ticks > 1


def test_a_cancelled_arecv_loses_nothing() -> None:
    async def main() -> list[object]:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await ours.arecv()
        theirs.send("kept")
        return [await ours.arecv()]

    ours, theirs = Pipe()
    with ours, theirs:
        before = open_fds().keys()
        assert asyncio.run(asyncio.wait_for(main(), DEADLOCK)) == ["kept"]
        assert open_fds().keys() == before


def test_two_coroutines_receive_from_one_connection_each_message_once() -> None:
    async def main() -> list[int]:
        async def take() -> list[int]:
            return [await ours.arecv() for _ in range(50)]

        takers = [asyncio.create_task(take()) for _ in range(2)]
        for number in range(100):
            await theirs.asend(number)
        first, second = [await taker for taker in takers]
        return sorted(first + second)

    ours, theirs = Pipe()
    with ours, theirs:
        assert asyncio.run(asyncio.wait_for(main(), DEADLOCK)) == list(range(100))


def test_wait_takes_connections_processes_and_futures_together(ctx: Any) -> None:
    gate = ctx.Event()
    ours, theirs = Pipe()
    with ours, theirs, ctx.Pool(1, initializer=targets.take_gate, initargs=(gate,)) as pool:
        future = pool.submit(targets.waits_for_gate)
        process = ctx.Process(target=targets.waits)
        process.start()
        everything = [ours, process, future]
        assert wait(everything, 0) == []
        theirs.send("hello")
        assert wait(everything, DEADLOCK) == [ours]
        assert ours.recv() == "hello"
        process.kill()
        assert wait(everything, DEADLOCK) == [process]
        gate.set()
        assert wait([ours, future], DEADLOCK) == [future]
        assert future.result() == "passed the gate"
        process.join()
        theirs.send("again")
        assert wait(everything, DEADLOCK) == everything


def test_a_future_of_the_standard_library_can_be_waited_for_again_and_again() -> None:
    future: concurrent.futures.Future[int] = concurrent.futures.Future()
    other: concurrent.futures.Future[int] = concurrent.futures.Future()
    before = open_fds().keys()
    for _ in range(50):
        assert wait([future, other], 0) == []
    assert len(vars(future)["_done_callbacks"]) == 1
    assert open_fds().keys() == before
    timer = threading.Thread(target=future.set_result, args=(1,))
    timer.start()
    assert wait([future, other], DEADLOCK) == [future]
    assert wait([other, future], DEADLOCK) == [future]
    timer.join()


def test_a_process_that_was_not_started_cannot_be_waited_for(ctx: Any) -> None:
    with pytest.raises(ValueError, match="not started"):
        wait([ctx.Process(target=targets.waits)])


@pytest.mark.parametrize("portable", ["", "1"])
def test_big_arrays_go_there_and_back_through_a_duplex_pipe(
    ctx: Any, portable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    numpy = pytest.importorskip("numpy")
    monkeypatch.setenv("PROCFLOW_PORTABLE", portable)
    ours, theirs = ctx.Pipe()
    process = ctx.Process(target=targets.adds_one_and_keeps, args=(theirs,))
    process.start()
    theirs.close()
    sent = numpy.zeros(100_000)
    for n in range(5):
        sent[:] = n
        ours.send(sent)
        assert (ours.recv(DEADLOCK) == n + 1).all()
    ours.close()
    process.join(DEADLOCK)
    assert process.exitcode == 0


def test_a_coroutine_receives_big_arrays(ctx: Any) -> None:
    numpy = pytest.importorskip("numpy")
    ours, theirs = ctx.Pipe()
    process = ctx.Process(target=targets.adds_one_and_keeps, args=(theirs,))
    process.start()
    theirs.close()

    async def talk() -> None:
        for n in range(3):
            await ours.asend(numpy.full(100_000, float(n)))
            assert ((await ours.arecv()) == n + 1).all()

    asyncio.run(talk())
    ours.close()
    process.join(DEADLOCK)
