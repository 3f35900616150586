"""How long does `await` of one call take in asyncio?

procflow's futures are awaitable; executors are run by loop.run_in_executor, pebble's futures by asyncio.wrap_future.
"""

from __future__ import annotations

import asyncio
import operator
import time

from _hosts import Question, run
from _peers import Peer


def one_by_one(peer: Peer, count: int) -> float:
    async def calls() -> float:
        await peer.awaitable(operator.neg, 1)
        begin = time.perf_counter()
        for number in range(count):
            await peer.awaitable(operator.neg, number)
        return (time.perf_counter() - begin) / count

    return asyncio.run(calls())


def at_once(peer: Peer, count: int) -> float:
    async def call(number: int) -> None:
        await peer.awaitable(operator.neg, number)

    async def calls() -> float:
        await peer.awaitable(operator.neg, 1)
        begin = time.perf_counter()
        await asyncio.gather(*(call(number) for number in range(count)))
        return (time.perf_counter() - begin) / count

    return asyncio.run(calls())


QUESTIONS = [
    Question("await of one call after the other, per call", one_by_one, 1000, needs="awaitable"),
    Question("1,000 coroutines that each await one call, per call", at_once, 1000, needs="awaitable"),
]

if __name__ == "__main__":
    run(QUESTIONS)
