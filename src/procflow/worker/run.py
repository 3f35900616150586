"""Run packets: the inner loop of a worker. What becomes of results is `answer.py`'s.

R1  Everything that a packet's items do ends in its answer: a value, or a failure. Only the process's death does not.
R2  Before an item begins, the status page names it; only then the worker looks whether it may still begin it.
    Before the items of a packet are unpickled, all at once, the page says that it is at that.
R3  What a finished item gave is in the status page's log before the next item begins, so a later death does not lose
    it. (Not for the quick items of a map, of which one report covers several: that map fails as a whole anyway.)
"""

from __future__ import annotations

import os
from itertools import islice
from time import monotonic_ns, perf_counter

from procflow.wire.blocks import RESULTS_MOST, Writer, can_map
from procflow.wire.packets import (
    CALL_HEADER,
    CALLS,
    IN_BLOCKS,
    ISOLATE,
    STAR,
    TASK,
    TIMED,
)
from procflow.wire.parcels import VIEWS_MOST, Reader
from procflow.wire.pickling import loads
from procflow.worker.answer import Answer
from procflow.worker.attempts import Again, ExitAgain, Retried
from procflow.worker.status import NOTHING, REVOKED, RUNS, SINCE, STOP, STOP_SEQ, WIDEST, WIDTH_BITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Protocol

    from procflow.worker.task import Place

    class Parcel(Protocol):
        def pieces(self) -> tuple[memoryview, Iterable[bytearray | memoryview]]: ...

    class Parcels(Protocol):
        """Where big packets come from: `wire.parcels.Reader`, for one."""

        def parcel(self, data: memoryview) -> Parcel: ...

    Header = tuple[int, int, int, int, int, int, int, int, int, int]  # TASK of wire/packets.py

__all__ = ["Runner", "open_runner"]

QUICK = 1e-3  # seconds: after such a packet the next one is likely to come at once
REPORTS = 64  # a packet of many quick items reports its place this many times


class Runner:
    """Runs packets one after the other. It keeps the functions of the jobs that are alive."""

    def __init__(self, page: memoryview[int], answer: Answer, reader: Parcels, *, slot: int = 0, seed: int = 0) -> None:
        """`slot` and `seed` (the pool's) are told to tasks."""
        self._page, self._answer, self._reader = page, answer, reader
        self._functions: dict[int, Callable[..., object]] = {}
        self._oldest = 0
        self.slot, self._seed = slot, seed
        self._header: Header | None = None  # of the packet that runs
        self._values: Sequence[object] = ()  # those of its items that run together and are done
        self.was_quick = True  # the last packet
        self.exit_code: int | None = None  # set when a task called sys.exit(): the worker ends after this answer

    def look_behind_by(self, followed: Callable[[], object]) -> None:
        """`followed` tells whether there is another packet behind the one that runs."""
        self._answer.followed = followed

    def run(self, packet: bytes) -> None:
        """Run the packet, and answer it."""
        began = perf_counter()
        header = TASK.unpack_from(packet)
        seq, _, oldest, start, count, grain, kind, flags, _, _ = header
        answer = self._answer
        # How many items one report covers: a chunk, or as many as keep the reports' cost below a hundredth.
        unit = grain or (1 if flags & TIMED else max(1, count // REPORTS))
        answer.begin(
            seq, start, began, isolate=bool(flags & ISOLATE), logs=bool(flags & ISOLATE) or unit == 1 or grain > 0
        )
        if self._page[REVOKED] == seq:
            if flags & IN_BLOCKS:
                self._reader.parcel(memoryview(packet)[TASK.size :])  # and drop it: that releases the blocks
            answer.finish(began)
            return
        if flags & TIMED:
            self._page[SINCE] = monotonic_ns()
        # Items are unpickled together: none of them runs yet. Calls are unpickled one by one.
        self._page[RUNS] = start << WIDTH_BITS | (kind == CALLS)
        if oldest != self._oldest:
            self._forget(oldest)
        # In a frame of its own: what the packet brought is released before the pool learns that the worker is free.
        self._header = header
        self._run_packet(answer, packet, header, unit)
        self._header, self._values = None, ()
        now = perf_counter()
        answer.finish(now)
        self.was_quick = now - began < QUICK

    def place(self) -> Place | None:
        """Where the item that runs is. Everything is known already, but for who asks: see task.py."""
        header = self._header
        if header is None:
            return None
        _, job, _, start, _, _, kind, _, _, attempt = header
        runs, done = self._page[RUNS], len(self._values)
        if runs == NOTHING or done >= runs & WIDEST != WIDEST:
            return None  # items are unpickled, or the values of those that ran together are pickled
        at = (runs >> WIDTH_BITS) + done
        return 0 if kind == CALLS else at, attempt if at == start else 1, self.slot, self._seed, job, at

    def _run_packet(
        self,
        answer: Answer,
        packet: bytes,
        header: Header,
        unit: int,
    ) -> None:
        _, job, _, _, count, grain, kind, flags, function_nbytes, attempt = header
        body: bytes | memoryview = packet
        offset = TASK.size
        buffers: Iterable[bytearray | memoryview] = ()
        try:
            if flags & IN_BLOCKS:
                body, buffers = self._reader.parcel(memoryview(packet)[offset:]).pieces()
                offset = 0
            payload = offset + function_nbytes
            function = self._functions.get(job)
            if function is None and kind != CALLS:
                function = self._functions[job] = loads(memoryview(body)[offset:payload])
        except BaseException as error:  # noqa: BLE001 - user code: reductions, module level of imports; no memory
            chunk = grain or 1
            for done in range(0, count, chunk):
                answer.failure(error, min(chunk, count - done))
            return
        if function is None:
            self._run_calls(answer, body, buffers, payload, header)
            return
        if isinstance(function, Retried):
            function.attempt = attempt
        if kind == STAR:
            function = _Starred(function)
        del packet
        try:
            items = iter(loads(memoryview(body)[payload:], buffers=buffers))
        except BaseException as error:  # noqa: BLE001 - user code: reductions, module level of imports
            if count > (unit if grain else 1):
                answer.split()
            else:
                answer.failure(error, count)
            return
        del body, buffers
        self._run_items(answer, function, items, unit, header)

    def _forget(self, oldest: int) -> None:
        """Jobs before `oldest` have ended."""
        self._oldest = oldest
        for job in [job for job in self._functions if job < oldest]:
            del self._functions[job]

    def _run_calls(
        self,
        answer: Answer,
        body: bytes | memoryview,
        buffers: Iterable[bytearray | memoryview],
        offset: int,
        header: Header,
    ) -> None:
        seq, _, _, start, count, _, _, flags, _, attempt = header
        timed = flags & TIMED
        page, view = self._page, memoryview(body)
        beside = iter(buffers)
        last = start + count - 1
        for index in range(start, start + count):
            if timed:
                page[SINCE] = monotonic_ns()
            page[RUNS] = index << WIDTH_BITS | 1
            if page[STOP_SEQ] == seq and page[STOP] <= index:
                return
            nbytes, own = CALL_HEADER.unpack_from(body, offset)
            offset += CALL_HEADER.size
            try:
                function, args, kwargs = loads(view[offset : offset + nbytes], buffers=list(islice(beside, own)))
                if isinstance(function, Retried):
                    function.attempt = attempt
                answer.value(function(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - whatever a task raises is its result
                if self._exits(answer, error, 0, 1):
                    return
                answer.failure(error, 1)
            offset += nbytes
            if index < last and answer.is_late(perf_counter()):
                return

    def _stamped(self, items: Iterator[object]) -> Iterator[object]:
        """Yield the items, and say since when each of them runs."""
        page = self._page
        for item in items:
            page[SINCE] = monotonic_ns()
            yield item

    def _run_items(
        self,
        answer: Answer,
        function: Callable[..., object],
        items: Iterator[object],
        unit: int,
        header: Header,
    ) -> None:
        """Run the items, `unit` at a time."""
        seq, _, _, start, count, grain, _, flags, _, _ = header
        whole, timed = grain > 0, flags & TIMED  # a unit is a chunk, of which nothing runs after a failure
        page, position = self._page, 0
        if timed:
            items = self._stamped(items)
        while position < count:
            unit = min(unit, count - position)
            if timed:
                page[SINCE] = monotonic_ns()
            page[RUNS] = (start + position) << WIDTH_BITS | min(unit, WIDEST)
            if page[STOP_SEQ] == seq:
                left = page[STOP] - start - position
                if left <= 0:
                    return
                if left < unit:
                    unit = left
                    page[RUNS] = (start + position) << WIDTH_BITS | min(unit, WIDEST)
            done = self._run_unit(answer, function, items, unit, start + position, whole)
            if done == 0:
                return
            position += done
            if position < count and answer.is_late(perf_counter()):
                return

    def _run_unit(
        self, answer: Answer, function: Callable[..., object], items: Iterator[object], unit: int, at: int, whole: bool
    ) -> int:
        """Run `unit` items; return how many are done with, 0 if the worker is to exit."""
        values: list[object] = []
        self._values = values
        try:
            if unit == 1:
                answer.value(function(next(items)))
                return 1
            values.extend(map(function, islice(items, unit)))
            if len(values) < unit:  # `map` takes a StopIteration of the function for its own end
                raise StopIteration
        except BaseException as error:  # noqa: BLE001 - whatever a task raises is its result
            ran = len(values)
            if ran:
                answer.extend(values)
            passed_over = unit - ran - 1 if whole else 0
            if self._exits(answer, error, at + ran, 1 + passed_over):
                return 0
            answer.failure(error, 1 + passed_over)
            for _ in range(passed_over):
                next(items)
            return ran + 1 + passed_over
        answer.extend(values)
        return unit

    def _exits(self, answer: Answer, error: BaseException, task: int, items: int) -> bool:
        """sys.exit() in a task ends the worker, as it says; that task fails, and what is behind it is returned."""
        if not isinstance(error, SystemExit):
            return False
        from procflow.errors import WorkerDied

        self.exit_code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        died = WorkerDied(task, os.getpid(), self.exit_code, True)
        answer.failure(Again(died) if isinstance(error, ExitAgain) else died, items)
        return True


def open_runner(
    out: int,
    page: memoryview[int],
    log: memoryview[int],
    tasks: int,
    results: int,
    *,
    portable: bool = False,
    slot: int = 0,
    seed: int = 0,
) -> Runner:
    """Make the runner of a worker process; `tasks` and `results` are the files for what is big."""
    mapped = can_map() and not portable
    answer = Answer(out, page, log, Writer(results, mapped=mapped, limit=RESULTS_MOST))
    return Runner(page, answer, Reader(tasks, mapped=mapped, most_views=VIEWS_MOST), slot=slot, seed=seed)


class _Starred:
    """fn(*item), so that map() can call it."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, item: tuple[object, ...]) -> object:
        return self._function(*item)
