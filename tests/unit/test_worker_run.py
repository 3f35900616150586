"""A worker's inner loop, in this process: packets in, answers out through a pipe, and a status page."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from procflow.dispatch.outcome import Failure, decode
from procflow.errors import PicklingError, RemoteError, RemoteTraceback, WorkerDied
from procflow.start.spool import anonymous_file
from procflow.wire.blocks import Writer
from procflow.wire.packets import (
    AGAIN,
    ANSWER,
    ANSWER_HEADER,
    CALL_HEADER,
    CALLS,
    FAILURE,
    FRAME,
    IN_BLOCKS,
    ISOLATE,
    MAP,
    PIECES,
    PLACES,
    SEGMENT,
    SPLIT,
    STAR,
    TASK,
    TIMED,
    VALUE,
    VALUES,
)
from procflow.wire.parcels import Reader
from procflow.wire.pickling import dumps
from procflow.wire.pieces import Loose, Pieces
from procflow.worker import run as run_module
from procflow.worker.attempts import Retried
from procflow.worker.run import open_runner
from procflow.worker.status import (
    BEGUN,
    FIRST,
    LOG_SIZE,
    LOGGED,
    PAGE_SIZE,
    RUNS,
    SINCE,
    WIDEST,
    WIDTH_BITS,
    open_page,
)

PIPE_SIZE = 1 << 20
seen: list[Any] = []  # what the functions below were called with
bench: Bench  # the one of the test that runs


class Frame:
    """One answer, decoded."""

    def __init__(self, body: bytes, reader: Reader) -> None:
        self.seq, self.first, self.seconds, self.final = ANSWER_HEADER.unpack_from(body)
        self.kinds: list[int] = []
        self.items: list[int] = []
        self.outcomes: list[object] = []  # values, and exceptions for the items that failed
        at = ANSWER_HEADER.size
        while at < len(body):
            kind, items, nbytes = SEGMENT.unpack_from(body, at)
            at += SEGMENT.size
            data: object = body[at : at + nbytes]
            if kind & PLACES:
                data = reader.parcel(body[at : at + nbytes])
            elif kind & PIECES:
                data = Loose(body[at : at + nbytes])
            self.kinds.append(kind)
            self.items.append(items)
            if kind != SPLIT:
                outcome = decode(kind & (AGAIN - 1), data)
                self.outcomes += [outcome.error] if isinstance(outcome, Failure) else outcome
            at += nbytes


class Bench:
    """A runner, and the pool's end of what it has."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        os.set_blocking(self.reader, False)
        page = os.memfd_create("page")
        os.ftruncate(page, PAGE_SIZE)
        self.page, self.log = open_page(page)
        os.close(page)
        self.tasks = Writer(anonymous_file("tasks"), mapped=True)
        self.results = Reader(anonymous_file("results"), mapped=True)
        self.runner = open_runner(self.writer, self.page, self.log, self.tasks.fd, self.results.fd)
        self.seq = 0

    def close(self) -> None:
        for fd in (self.reader, self.writer, self.tasks.fd, self.results.fd):
            os.close(fd)

    def frames(self) -> list[Frame]:
        data = b""
        while True:
            try:
                more = os.read(self.reader, PIPE_SIZE)
            except BlockingIOError:
                break
            data += more
        frames, at = [], 0
        while at < len(data):
            nbytes, kind = FRAME.unpack_from(data, at)
            at += FRAME.size
            assert kind == ANSWER
            frames.append(Frame(data[at : at + nbytes], self.results))
            at += nbytes
        return frames

    def run(
        self,
        function: Callable[..., object] | bytes,
        items: Any,
        *,
        start: int = 0,
        grain: int = 0,
        kind: int = MAP,
        isolate: bool = True,
        job: int = 1,
        oldest: int = 1,
        block: bool = False,
        timed: bool = False,
        attempt: int = 1,
    ) -> list[Frame]:
        """Run one packet; return what it wrote."""
        packed = function if isinstance(function, bytes) else dumps(function)
        payload = items if isinstance(items, bytes) else dumps(items)
        count = len(items) if not isinstance(items, bytes) else 3
        return self.run_packed(packed, payload, start, count, grain, kind, isolate, job, oldest, block, timed, attempt)

    def run_packed(
        self,
        function: bytes,
        payload: bytes,
        start: int,
        count: int,
        grain: int,
        kind: int,
        isolate: bool,
        job: int,
        oldest: int,
        block: bool,
        timed: bool,
        attempt: int,
    ) -> list[Frame]:
        self.seq += 1
        flags = (ISOLATE if isolate else 0) | (IN_BLOCKS if block else 0) | (TIMED if timed else 0)
        header = TASK.pack(self.seq, job, oldest, start, count, grain, kind, flags, len(function), attempt)
        body = function + payload
        if block:
            body = self.tasks.store(Pieces([function, payload])) or b""
        self.runner.run(header + body)
        return self.frames()

    def call(self, *calls: bytes, timed: bool = False) -> list[Frame]:
        """Run separate calls, each pickled."""
        payload = b"".join(CALL_HEADER.pack(len(call), 0) + call for call in calls)
        return self.run_packed(b"", payload, 0, len(calls), 0, CALLS, True, 1, 1, False, timed, 1)


@pytest.fixture(autouse=True)
def fresh_bench() -> Iterator[None]:
    global bench
    bench = Bench()
    seen.clear()
    yield
    bench.close()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in a list of one; it stands still where a test does not move it, whatever an import takes."""
    now = [100.0]
    monkeypatch.setattr(run_module, "perf_counter", lambda: now[0])
    return now


def square(x: int) -> int:
    seen.append(x)
    return x * x


def odd_fails(x: int) -> int:
    seen.append(x)
    if x % 2:
        raise ValueError(x)
    return x


def page_now(_: object) -> tuple[int, int, int, int, int]:
    runs = bench.page[RUNS]
    return bench.page[BEGUN], runs >> WIDTH_BITS, runs & WIDEST, bench.page[LOGGED], bench.page[FIRST]


def outcomes(frames: list[Frame]) -> list[object]:
    return [outcome for frame in frames for outcome in frame.outcomes]


class Unpicklable:
    def __reduce__(self) -> str:
        raise TypeError("not this one")


class Stubborn(Exception):
    """It pickles, and its constructor refuses what is pickled."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(a)


class Poison:
    """It pickles, and does not unpickle."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return refuse, ()


def refuse() -> None:
    raise LookupError("poison")


def unpicklable(_: object) -> Unpicklable:
    return Unpicklable()


def raise_unpicklable(_: object) -> None:
    raise ValueError(threading.Lock())


def raise_stubborn(_: object) -> None:
    raise Stubborn(1, 2)


def stop(x: int) -> int:
    if x == 1:
        raise StopIteration(x)
    return x


def leave(x: int) -> int:
    seen.append(x)
    if x == 1:
        raise SystemExit(3)
    return x


def unpicklable_at_one(x: int) -> object:
    return threading.Lock() if x == 1 else x


def large(nbytes: int) -> bytes:
    return b"x" * nbytes


def add(x: int, y: int = 0) -> int:
    return x + y


# -- values ----


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("grain", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("count", [1, 7, 200])
def test_a_packet_gives_its_values_in_order(isolate: bool, grain: int, count: int) -> None:
    frames = bench.run(square, range(count), grain=grain, isolate=isolate)
    assert outcomes(frames) == [x * x for x in range(count)]
    assert seen == list(range(count))


def test_the_last_answer_of_a_packet_and_no_other_is_final(clock: list[float]) -> None:
    frames = bench.run(Slow(clock, 2e-3), range(4))
    assert [frame.final for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert {frame.seq for frame in frames} == {bench.seq}


def test_an_answer_names_the_first_item_that_it_covers() -> None:
    assert bench.run(square, range(3), start=40)[0].first == 40


def test_simple_values_travel_together_and_others_apart() -> None:
    assert bench.run(square, range(10))[0].kinds == [VALUES]
    assert bench.run(list, [()] * 10, job=2)[0].kinds == [VALUE] * 10


def test_starred_items_are_unpacked() -> None:
    assert outcomes(bench.run(add, [(1, 2), (3, 4)], kind=STAR)) == [3, 7]


def test_separate_calls_have_functions_and_keywords_of_their_own() -> None:
    frames = bench.call(dumps((add, (1,), {"y": 2})), dumps((square, (3,), {})))
    assert outcomes(frames) == [3, 9]


def test_a_packet_may_stand_in_a_block() -> None:
    assert outcomes(bench.run(square, range(5), block=True)) == [0, 1, 4, 9, 16]


def test_a_function_that_came_once_need_not_come_again() -> None:
    bench.run(square, range(2))
    assert outcomes(bench.run(b"", range(3))) == [0, 1, 4]


def test_the_functions_of_jobs_that_ended_are_forgotten() -> None:
    bench.run(square, range(2), job=1, oldest=1)
    bench.run(add, range(2), job=2, oldest=2)
    assert list(bench.runner._functions) == [2]


def test_large_results_come_whole() -> None:
    sizes = [10, LOG_SIZE, 200_000, 5]
    frames = bench.run(large, sizes)
    assert [len(value) for value in outcomes(frames)] == sizes  # type: ignore[arg-type]
    assert [frame.final for frame in frames] == [False] * (len(frames) - 1) + [True]


def test_results_that_fill_the_log_are_written_when_it_is_full() -> None:
    frames = bench.run(large, [20_000] * 10)
    assert [len(value) for value in outcomes(frames)] == [20_000] * 10  # type: ignore[arg-type]
    assert len(frames) > 1


# -- failures ----


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("count", [6, 200])
def test_without_a_chunksize_each_item_fails_alone(isolate: bool, count: int, clock: list[float]) -> None:
    found = outcomes(bench.run(odd_fails, range(count), isolate=isolate))
    assert [x if isinstance(x, int) else -x.args[0] for x in found] == [-x if x % 2 else x for x in range(count)]  # type: ignore[attr-defined]
    assert seen == list(range(count))


@pytest.mark.parametrize("isolate", [False, True])
def test_in_a_chunk_what_came_before_a_failure_is_delivered_and_the_rest_passed_over(isolate: bool) -> None:
    frames = bench.run(odd_fails, [0, 2, 5, 4, 8, 10, 12, 14], grain=4, isolate=isolate)
    found = outcomes(frames)
    assert found[:2] == [0, 2]
    assert isinstance(found[2], ValueError)
    assert found[3:] == [8, 10, 12, 14]
    assert sum(frames[0].items) == 8
    assert 4 not in seen


def test_a_failure_brings_the_workers_traceback_as_its_cause() -> None:
    (error,) = outcomes(bench.run(odd_fails, [1]))
    assert isinstance(error, ValueError)
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "in odd_fails" in str(error.__cause__)


def test_the_traceback_begins_with_the_users_function() -> None:
    (error,) = outcomes(bench.run(odd_fails, [1]))
    assert isinstance(error, ValueError)
    first = next(line for line in str(error.__cause__).splitlines() if "File" in line)
    assert __file__ in first


@pytest.mark.parametrize("grain", [0, 1, 3])
def test_a_stop_iteration_ends_nothing_but_its_task(grain: int) -> None:
    found = outcomes(bench.run(stop, [0, 1, 2, 3], grain=grain))
    assert found[0] == 0
    assert isinstance(found[1], StopIteration | RuntimeError)
    assert found[-1] == 3


def test_a_result_that_does_not_pickle_fails_its_task_only() -> None:
    found = outcomes(bench.run(unpicklable_at_one, range(3)))
    assert (found[0], found[2]) == (0, 2)
    assert isinstance(found[1], PicklingError)
    assert "lock" in str(found[1])


@pytest.mark.parametrize("grain", [0, 2])
def test_a_result_that_does_not_pickle_fails_its_task_only_where_results_travel_together(grain: int) -> None:
    found = outcomes(bench.run(unpicklable_at_one, range(200), grain=grain, isolate=False))
    assert len(found) == 200
    assert [index for index, x in enumerate(found) if isinstance(x, PicklingError)] == [1]


def test_a_result_whose_reduction_raises_fails_its_task() -> None:
    (error,) = outcomes(bench.run(unpicklable, [0]))
    assert isinstance(error, PicklingError)
    assert "not this one" in str(error)


def test_an_exception_that_does_not_pickle_is_told_in_words() -> None:
    (error,) = outcomes(bench.run(raise_unpicklable, [0]))
    assert isinstance(error, RemoteError)
    assert error.type_name == "ValueError"
    assert "in raise_unpicklable" in error.traceback


def test_an_exception_that_can_not_be_rebuilt_is_told_in_words() -> None:
    (error,) = outcomes(bench.run(raise_stubborn, [0]))
    assert isinstance(error, RemoteError)
    assert error.type_name == "Stubborn"


def test_a_call_whose_arguments_do_not_unpickle_fails_alone() -> None:
    found = outcomes(bench.call(dumps((square, (2,), {})), dumps((square, (Poison(),), {})), dumps((square, (3,), {}))))
    assert (found[0], found[2]) == (4, 9)
    assert isinstance(found[1], LookupError)


def test_items_that_do_not_unpickle_together_are_asked_for_one_by_one() -> None:
    (frame,) = bench.run(square, [1, Poison(), 3])
    assert frame.kinds == [SPLIT]
    assert seen == []


def test_a_single_item_that_does_not_unpickle_fails() -> None:
    assert isinstance(outcomes(bench.run(square, [Poison()]))[0], LookupError)


def test_a_chunk_that_does_not_unpickle_fails_whole() -> None:
    (frame,) = bench.run(square, [1, Poison(), 3], grain=3)
    assert frame.items == [3]
    assert isinstance(frame.outcomes[0], LookupError)


@pytest.mark.parametrize(("grain", "items"), [(0, [1, 1, 1]), (2, [2, 1])])
def test_a_function_that_does_not_unpickle_fails_every_task(grain: int, items: list[int]) -> None:
    (frame,) = bench.run(dumps(Poison()), range(3), grain=grain)
    assert frame.items == items
    assert {type(error) for error in frame.outcomes} == {LookupError}


# -- sys.exit ----


@pytest.mark.parametrize("isolate", [False, True])
def test_sys_exit_fails_its_task_ends_the_worker_and_returns_the_rest(isolate: bool) -> None:
    (frame,) = bench.run(leave, range(4), isolate=isolate)
    value, error = frame.outcomes
    assert value == 0
    assert isinstance(error, WorkerDied)
    assert (error.task, error.exitcode, error.pid, error.started) == (1, 3, os.getpid(), True)
    assert frame.final
    assert seen == [0, 1]
    assert bench.runner.exit_code == 3


def test_sys_exit_in_a_chunk_fails_the_rest_of_the_chunk_and_returns_the_other_chunks() -> None:
    (frame,) = bench.run(leave, range(6), grain=3)
    assert frame.items == [1, 2]
    assert bench.runner.exit_code == 3


@pytest.mark.parametrize(("code", "exitcode"), [(None, 0), (0, 0), (5, 5), ("a message", 1)])
def test_what_sys_exit_says_is_the_exit_code(code: object, exitcode: int) -> None:
    frames = bench.call(
        dumps((SystemExit(code).with_traceback, (None,), {})), dumps((raise_it, (SystemExit(code),), {}))
    )
    assert isinstance(outcomes(frames)[1], WorkerDied)
    assert bench.runner.exit_code == exitcode


def raise_it(error: BaseException) -> None:
    raise error


# -- the page and the log ----


def test_the_page_names_the_item_that_runs() -> None:
    found = outcomes(bench.run(page_now, range(3), start=10))
    assert [page[:3] for page in found] == [(1, 10, 1), (1, 11, 1), (1, 12, 1)]  # type: ignore[index]
    assert bench.page[RUNS] >> WIDTH_BITS == 12, "a death now is not blamed on what comes behind"


def loading(_: object) -> tuple[int, int]:
    return bench.page[RUNS] >> WIDTH_BITS, bench.page[RUNS] & WIDEST


def same(value: object) -> object:
    return value


class LooksWhenUnpickled:
    def __reduce__(self) -> Any:
        return loading, (0,)


def test_the_page_says_that_items_are_being_unpickled_and_that_none_has_begun() -> None:
    items = dumps([LooksWhenUnpickled()] * 3)
    assert outcomes(bench.run(same, items, start=10)) == [(10, 0)] * 3


def test_of_calls_the_page_names_the_first_before_anything_is_unpickled() -> None:
    call = dumps((same, (LooksWhenUnpickled(),), {}))
    assert outcomes(bench.call(call, call)) == [(0, 1), (1, 1)]


def test_a_report_covers_a_chunk() -> None:
    found = outcomes(bench.run(page_now, range(5), grain=2))
    assert [page[1:3] for page in found] == [(0, 2), (0, 2), (2, 2), (2, 2), (4, 1)]  # type: ignore[index]


def test_a_report_covers_several_of_many_quick_items() -> None:
    found = outcomes(bench.run(page_now, range(640)))
    assert {page[2] for page in found} == {10}  # type: ignore[index]


def test_what_is_done_is_in_the_log_before_the_next_item_begins() -> None:
    found = outcomes(bench.run(page_now, range(3), start=10))
    logged = [page[3] for page in found]  # type: ignore[index]
    assert logged == sorted(set(logged))
    assert {page[4] for page in found} == {10}  # type: ignore[index]


def test_the_log_is_empty_when_it_was_written() -> None:
    bench.run(square, range(3), start=10)
    assert bench.page[LOGGED] == 0
    assert bench.page[FIRST] == 13


# -- limits and further attempts ----


def since(_: object) -> int:
    return int(bench.page[SINCE])


@pytest.mark.parametrize("grain", [0, 3])
def test_the_page_says_since_when_each_timed_item_runs(grain: int) -> None:
    before = time.monotonic_ns()
    found: list[Any] = outcomes(bench.run(since, range(6), grain=grain, timed=True))
    assert before < found[0]
    assert found == sorted(set(found))
    assert found[-1] < time.monotonic_ns()


def test_the_page_says_since_when_each_timed_call_runs() -> None:
    calls = [dumps((since, (0,), {}))] * 2
    first, second = outcomes(bench.call(*calls, timed=True))
    assert 0 < first < second  # type: ignore[operator]


def test_timed_items_are_reported_one_by_one() -> None:
    found = outcomes(bench.run(page_now, range(640), timed=True))
    assert {page[2] for page in found} == {1}  # type: ignore[index]


@pytest.mark.parametrize(("attempt", "again"), [(1, True), (2, True), (3, False), (4, False)])
def test_a_failure_may_begin_again_while_attempts_are_left(attempt: int, again: bool) -> None:
    frames = bench.run(Retried(odd_fails, 2, (ValueError,)), [1], attempt=attempt)
    assert [kind for frame in frames for kind in frame.kinds] == [FAILURE | AGAIN]  # the pool counts
    (error,) = outcomes(frames)
    assert isinstance(error, ValueError)
    assert getattr(error, "__notes__", []) == ([] if again else [f"procflow: that was attempt {attempt} of 3"])


def test_a_failure_that_was_not_chosen_is_final() -> None:
    frames = bench.run(Retried(odd_fails, 2, (KeyError, OSError)), [1])
    assert [kind for frame in frames for kind in frame.kinds] == [FAILURE]


def test_of_a_chunk_that_begins_again_only_the_first_item_was_there_before() -> None:
    frames = bench.run(Retried(odd_fails, 1, (ValueError,)), [2, 1, 4], grain=3, attempt=2)
    assert [items for frame in frames for items in frame.items] == [1, 2]
    assert [kind for frame in frames for kind in frame.kinds][-1] == FAILURE | AGAIN


# -- time ----


class Slow:
    """A function that takes so long, by the clock of the test."""

    def __init__(self, clock: list[float], seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    def __call__(self, x: int) -> int:
        seen.append(x)
        self.clock[0] += self.seconds
        return x

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        Slow.newest = self
        return newest, ()

    newest: Slow


def newest() -> Slow:
    """Stand for the function that was pickled last, so that it arrives with its clock."""
    return Slow.newest


def test_results_older_than_a_millisecond_are_written_while_the_packet_runs(clock: list[float]) -> None:
    frames = bench.run(Slow(clock, 0.6e-3), range(4))
    assert [frame.outcomes for frame in frames] == [[0, 1], [2, 3]]
    assert [frame.first for frame in frames] == [0, 2]


def test_quick_results_are_written_once(clock: list[float]) -> None:
    assert len(bench.run(Slow(clock, 1e-6), range(100))) == 1


def test_after_ten_milliseconds_what_has_not_begun_is_handed_back(clock: list[float]) -> None:
    frames = bench.run(Slow(clock, 6e-3), range(10))
    assert outcomes(frames) == seen == [0, 1]
    assert [frame.final for frame in frames] == [False, True]


def test_a_chunk_is_not_torn_by_handing_back(clock: list[float]) -> None:
    frames = bench.run(Slow(clock, 6e-3), range(10), grain=3)
    assert outcomes(frames) == [0, 1, 2]


def test_the_last_item_is_never_handed_back(clock: list[float]) -> None:
    assert outcomes(bench.run(Slow(clock, 60.0), range(1))) == [0]


def test_separate_calls_are_handed_back_too(clock: list[float]) -> None:
    calls = [dumps((Wait(seconds), (), {})) for seconds in (1e-3, 11e-3, 1.0)]
    Wait.clock = clock
    assert outcomes(bench.call(*calls)) == [1e-3, 11e-3]


class Wait:
    clock: list[float]

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        self.clock[0] += self.seconds
        return self.seconds


def test_the_time_that_is_reported_is_what_passed_since_the_last_answer(clock: list[float]) -> None:
    frames = bench.run(Slow(clock, 2e-3), range(3))
    assert [frame.seconds for frame in frames] == [pytest.approx(2e-3), pytest.approx(2e-3), pytest.approx(2e-3)]
