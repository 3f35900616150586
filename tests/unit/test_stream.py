"""A stream on the consumer's side: how much may be read while it gives out what has come. No pool, no thread."""

from __future__ import annotations

from typing import Any

import pytest

from procflow.dispatch.stream import ResultIterator, StreamJob
from procflow.engines.base import OBJECTS
from procflow.scheduling.scheduler import Job
from procflow.wire.packets import MAP


class Dispatcher:
    """As much of it as a consumer needs that never waits."""

    def room(self, job: StreamJob, held: int) -> int:
        assert job.buffersize is not None
        return job.buffersize - held

    def take_part(self, job: StreamJob) -> bool:
        return job.take()

    def resolve_stream(self, job: StreamJob) -> None:
        pass

    def abandon(self, job: StreamJob) -> None:
        pass


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("parts", [[50], [20, 30], [1] * 50, [49, 1]])
def test_an_item_makes_room_when_its_result_is_given_out(ordered: bool, parts: list[int]) -> None:
    core: Any = Dispatcher()
    job = StreamJob(Job(1, 1, True, True, 100), lambda x: x, MAP, core, 50, ordered)
    results: ResultIterator[int] = ResultIterator(job, core)
    seen: list[int] = []
    job.refill = lambda: seen.append(job.room())
    job.add(range(50))
    assert job.room() == 0
    start = 0
    for count in parts:
        job.deliver(core, start, count, OBJECTS, list(range(start, start + count)))
        start += count
    for taken in range(1, 51):
        assert next(results) == taken - 1
        assert job.room() == taken
        assert all(room <= taken for room in seen)
    assert max(seen) > 25, "it was told of room before all was given out"
    results.close()
