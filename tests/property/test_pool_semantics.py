"""A pool gives what the builtin `map` gives, for any input, chunk size, number of workers, engine and start method."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import procflow
from procflow.scheduling.scheduler import READY
from tests.property.functions import add, double, odd_fails, same
from tests.support import DEADLOCK, wait_until

WORKERS = [1, 2, 3, 4]
POOLS = [("serial", "forkserver"), ("local", "fork"), ("local", "forkserver"), ("local", "spawn")]

PROPERTY = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

values = (
    st.integers()
    | st.text(max_size=3)
    | st.binary(max_size=3)
    | st.none()
    | st.tuples(st.integers())
    | st.floats(allow_nan=False)
)
integers = st.lists(st.integers(-1000, 1000), max_size=40)


@pytest.fixture(scope="module", params=POOLS, ids="-".join)
def pools(request: pytest.FixtureRequest, servers: None) -> Iterator[list[procflow.Pool]]:
    """Pools of 1 to 4 workers, of one engine and start method."""
    engine, method = request.param
    context = procflow.get_context(method)
    opened = [procflow.Pool(workers, engine=engine, context=context) for workers in WORKERS]
    for pool in opened:
        # The threads and workers that an open pool has are there from now on: not all workers boot at once.
        wait_until(lambda: all_ready(pool), "all workers")  # noqa: B023
    yield opened
    for pool in opened:
        pool.terminate()
        pool.join()


def all_ready(pool: procflow.Pool) -> bool:
    pool.map(same, range(20), chunksize=1)  # who waits takes in what was reported
    return all(worker.state == READY for worker in pool._core.scheduler.workers.values())


def chunksizes(data: st.DataObject, items: list[Any]) -> int | None:
    return data.draw(st.none() | st.integers(1, len(items) + 1), "chunksize")


def outcome(call: Callable[[], Any]) -> Any:
    """Return what it returns, or what it raises in a form that can be compared."""
    try:
        return call()
    except ValueError as error:
        return "raised", error.args


def outcomes(results: Any) -> list[Any]:
    """Go through an iterator that raises for some of its items, and goes on."""
    found = []
    while True:
        try:
            found.append(results.next(DEADLOCK))
        except StopIteration:
            return found
        except ValueError as error:
            found.append(("raised", error.args))


@PROPERTY
@given(xs=st.lists(values, max_size=30), data=st.data())
def test_map_is_the_builtin_map(pools: list[procflow.Pool], xs: list[Any], data: st.DataObject) -> None:
    pool = data.draw(st.sampled_from(pools))
    assert pool.map(same, xs, chunksizes(data, xs)) == xs


@PROPERTY
@given(xs=integers, data=st.data())
def test_map_takes_any_iterable(pools: list[procflow.Pool], xs: list[int], data: st.DataObject) -> None:
    pool = data.draw(st.sampled_from(pools))
    make = data.draw(st.sampled_from([list, tuple, iter, lambda items: (x for x in items), dict.fromkeys]))
    assert pool.map(double, make(xs), chunksizes(data, xs)) == list(map(double, make(xs)))


@PROPERTY
@given(start=st.integers(-50, 50), stop=st.integers(-50, 200), step=st.sampled_from([-3, -1, 1, 2, 7]), data=st.data())
def test_map_over_a_range(pools: list[procflow.Pool], start: int, stop: int, step: int, data: st.DataObject) -> None:
    pool, items = data.draw(st.sampled_from(pools)), range(start, stop, step)
    assert pool.map(double, items, chunksizes(data, list(items))) == [x * 2 for x in items]


@PROPERTY
@given(xs=st.lists(st.tuples(st.integers(), st.integers()) | st.tuples(st.integers()), max_size=30), data=st.data())
def test_starmap_is_itertools_starmap(pools: list[procflow.Pool], xs: list[Any], data: st.DataObject) -> None:
    pool = data.draw(st.sampled_from(pools))
    expected = list(itertools.starmap(add, xs))
    assert pool.starmap(add, xs, chunksizes(data, xs)) == expected
    assert pool.starmap_async(add, iter(xs), chunksizes(data, xs)).get(DEADLOCK) == expected


@PROPERTY
@given(lists=st.lists(integers, max_size=4), data=st.data())
def test_several_maps_at_once_do_not_mix(
    pools: list[procflow.Pool], lists: list[list[int]], data: st.DataObject
) -> None:
    pool = data.draw(st.sampled_from(pools))
    futures = [pool.map_async(double, xs, chunksizes(data, xs)) for xs in lists]
    for future, xs in zip(reversed(futures), reversed(lists), strict=True):
        assert future.get(DEADLOCK) == [x * 2 for x in xs]


@PROPERTY
@given(xs=integers, data=st.data())
def test_map_raises_what_the_lowest_failing_item_raises(
    pools: list[procflow.Pool], xs: list[int], data: st.DataObject
) -> None:
    pool = data.draw(st.sampled_from(pools))
    assert outcome(lambda: pool.map(odd_fails, xs, chunksizes(data, xs))) == outcome(lambda: list(map(odd_fails, xs)))


@PROPERTY
@given(xs=integers, data=st.data())
def test_imap_is_the_builtin_map_in_order(pools: list[procflow.Pool], xs: list[int], data: st.DataObject) -> None:
    pool, make = data.draw(st.sampled_from(pools)), data.draw(st.sampled_from([list, iter]))
    assert list(pool.imap(double, make(xs), chunksizes(data, xs))) == [x * 2 for x in xs]


@PROPERTY
@given(xs=integers, data=st.data())
def test_imap_unordered_gives_the_same_items(pools: list[procflow.Pool], xs: list[int], data: st.DataObject) -> None:
    pool, make = data.draw(st.sampled_from(pools)), data.draw(st.sampled_from([list, iter]))
    assert Counter(pool.imap_unordered(double, make(xs), chunksizes(data, xs))) == Counter(x * 2 for x in xs)


@PROPERTY
@given(xs=integers, extra=st.integers(0, 5), data=st.data())
def test_imap_with_a_buffersize_gives_all(
    pools: list[procflow.Pool], xs: list[int], extra: int, data: st.DataObject
) -> None:
    pool, make = data.draw(st.sampled_from(pools)), data.draw(st.sampled_from([list, iter]))
    chunksize = chunksizes(data, xs)
    assert list(pool.imap(double, make(xs), chunksize, buffersize=(chunksize or 1) + extra)) == [x * 2 for x in xs]


def by_chunks(xs: list[int], chunksize: int) -> list[Any]:
    """What imap gives if `odd_fails` fails: of each chunk what came before its first failure, then the failure."""
    found: list[Any] = []
    for start in range(0, len(xs), chunksize):
        for x in xs[start : start + chunksize]:
            found.append(outcome(lambda x=x: odd_fails(x)))  # type: ignore[misc]
            if x % 2:
                break
    return found


@PROPERTY
@given(xs=integers, data=st.data())
def test_imap_goes_on_after_a_failure(pools: list[procflow.Pool], xs: list[int], data: st.DataObject) -> None:
    pool, chunksize = data.draw(st.sampled_from(pools)), chunksizes(data, xs)
    assert outcomes(pool.imap(odd_fails, iter(xs), chunksize)) == by_chunks(xs, chunksize or 1)


@PROPERTY
@given(xs=integers, data=st.data())
def test_imap_unordered_goes_on_after_a_failure(pools: list[procflow.Pool], xs: list[int], data: st.DataObject) -> None:
    pool, chunksize = data.draw(st.sampled_from(pools)), chunksizes(data, xs)
    assert Counter(outcomes(pool.imap_unordered(odd_fails, xs, chunksize))) == Counter(by_chunks(xs, chunksize or 1))


@PROPERTY
@given(xs=integers, stop=st.integers(0, 40), data=st.data())
def test_an_input_that_raises_gives_its_error_after_the_results_before_it(
    pools: list[procflow.Pool], xs: list[int], stop: int, data: st.DataObject
) -> None:
    pool = data.draw(st.sampled_from(pools))

    def items() -> Iterator[int]:
        yield from xs[:stop]
        raise ValueError("input")

    assert outcomes(pool.imap(double, items())) == [*(x * 2 for x in xs[:stop]), ("raised", ("input",))]


@PROPERTY
@given(xs=integers, data=st.data())
def test_calls_give_what_the_function_gives(pools: list[procflow.Pool], xs: list[int], data: st.DataObject) -> None:
    pool = data.draw(st.sampled_from(pools))
    futures = [pool.submit(add, x, y=1) for x in xs]
    assert [future.result(DEADLOCK) for future in futures] == [x + 1 for x in xs]
    assert (
        [outcome(lambda x=x: pool.apply(odd_fails, (x,))) for x in xs[:5]]
        == [  # type: ignore[misc]
            outcome(lambda x=x: odd_fails(x))
            for x in xs[:5]  # type: ignore[misc]
        ]
    )
