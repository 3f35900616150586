"""What crosses: arguments, results and exceptions arrive as they are, or their task alone fails and says why."""

from __future__ import annotations

import os
import pickle
import traceback
from pathlib import Path

import pytest

import procflow
from tests.faults import crossing, tasks
from tests.support import DEADLOCK

Pool = procflow.Pool


def error_of(pool: Pool, task: object, *args: object) -> BaseException:
    error = pool.submit(task, *args).exception(DEADLOCK)  # type: ignore[arg-type]
    assert error is not None
    return error


@pytest.mark.parametrize(
    "value", [None, False, 0, "", "\0", b"", StopIteration, NotImplemented, ..., float("inf")], ids=repr
)
def test_a_value_that_others_take_for_a_mark_is_a_value(value: object, ctx: procflow.Context) -> None:
    with ctx.Pool(1) as pool:
        assert pool.submit(crossing.give, value).result(DEADLOCK) == value
        assert pool.map(crossing.give, [value] * 5) == [value] * 5
        assert list(pool.imap(crossing.give, [value] * 5)) == [value] * 5


def test_an_exception_that_a_task_returns_is_a_value(ctx: procflow.Context) -> None:
    with ctx.Pool(1) as pool:
        future = pool.submit(crossing.give_exception)
        assert isinstance(future.result(DEADLOCK), ValueError)
        assert future.exception() is None


def test_an_exception_that_is_false_is_raised(ctx: procflow.Context) -> None:
    with ctx.Pool(1) as pool:
        with pytest.raises(crossing.Falsy):
            pool.submit(crossing.raise_falsy).result(DEADLOCK)
        with pytest.raises(crossing.Falsy):
            pool.apply(crossing.raise_falsy)
        with pytest.raises(crossing.Falsy):
            pool.starmap(crossing.raise_falsy, [()])


def test_an_exceptions_cause_notes_and_attributes_arrive(ctx: procflow.Context) -> None:
    with ctx.Pool(1) as pool:
        error = error_of(pool, crossing.raise_with_everything)
        assert type(error) is ValueError
        assert error.args == ("outer",)
        assert error.__notes__ == ["a note"]
        assert vars(error)["code"] == 7
        shown = "".join(traceback.format_exception(error))
        assert "raise_with_everything" in shown
        assert "KeyError: 'inner'" in shown
        assert "direct cause" in shown


def test_an_exceptions_context_is_shown(ctx: procflow.Context) -> None:
    with ctx.Pool(1) as pool:
        shown = "".join(traceback.format_exception(error_of(pool, crossing.raise_in_context)))
        assert "KeyError: 'inner'" in shown
        assert "During handling" in shown


def test_an_exception_group_arrives_whole(ctx: procflow.Context) -> None:
    with ctx.Pool(1) as pool:
        error = error_of(pool, crossing.raise_group)
        assert isinstance(error, ExceptionGroup)
        first, second = error.exceptions
        assert isinstance(first, ValueError)
        assert isinstance(second, ExceptionGroup)
        assert isinstance(second.exceptions[0], TypeError)
        assert second.exceptions[0].__notes__ == ["of b"]


def test_a_constructor_of_its_own_survives_or_is_stood_in_for(ctx: procflow.Context) -> None:
    with ctx.Pool(1) as pool:
        error = error_of(pool, crossing.raise_reduced)
        assert isinstance(error, crossing.Reduced)
        assert (error.code, error.text) == (7, "here")
        stand_in = error_of(pool, crossing.raise_two_arguments)
        assert isinstance(stand_in, procflow.RemoteError)
        assert stand_in.type_name == "TwoArguments"
        assert "7: here" in stand_in.text
        assert "raise_two_arguments" in stand_in.traceback
        assert str(pickle.loads(pickle.dumps(stand_in))) == str(stand_in)


def test_an_exception_that_holds_a_lock_is_stood_in_for(ctx: procflow.Context) -> None:
    with ctx.Pool(1) as pool:
        assert isinstance(error_of(pool, crossing.raise_holding_a_lock), procflow.RemoteError)
        assert pool.submit(tasks.double, 1).result(DEADLOCK) == 2


def test_a_huge_exception_arrives(ctx: procflow.Context) -> None:
    with ctx.Pool(1) as pool:
        assert len(error_of(pool, crossing.raise_huge).args[0]) == 5_000_000


@pytest.mark.parametrize("raised", ["ValueError", "SystemExit", "KeyboardInterrupt", "MemoryError", "RecursionError"])
def test_an_argument_that_can_not_be_rebuilt_fails_its_task(raised: str, ctx: procflow.Context) -> None:
    bad = crossing.RefusesToUnpickle(raised)
    with ctx.Pool(1) as pool:
        error_of(pool, crossing.give, bad)
        outcomes = pool.imap(crossing.give, [1, bad, 3], 1)
        assert outcomes.next(DEADLOCK) == 1
        with pytest.raises(BaseException):  # noqa: B017 - which one is the other tests' business
            outcomes.next(DEADLOCK)
        assert outcomes.next(DEADLOCK) == 3
        assert pool.submit(tasks.double, 1).result(DEADLOCK) == 2


@pytest.mark.parametrize("raised", ["ValueError", "SystemExit", "MemoryError", "RecursionError"])
def test_a_result_that_can_not_be_rebuilt_fails_its_task(raised: str, ctx: procflow.Context) -> None:
    with ctx.Pool(1) as pool:
        assert isinstance(error_of(pool, crossing.give_unpicklable, raised), procflow.UnpicklingError)
        with pytest.raises(procflow.UnpicklingError):
            pool.map(crossing.give_unpicklable, [raised] * 3)
        assert pool.submit(tasks.double, 1).result(DEADLOCK) == 2


@pytest.mark.parametrize("raised", ["ValueError", "SystemExit", "GeneratorExit", "MemoryError", "RecursionError"])
def test_a_result_whose_pickling_raises_fails_its_task(raised: str, ctx: procflow.Context) -> None:
    with ctx.Pool(1) as pool:
        pid = pool.apply(os.getpid)
        error = error_of(pool, crossing.give_what_refuses_to_pickle, raised)
        assert isinstance(error, procflow.PicklingError)
        assert raised.removesuffix("Error").lower() in str(error).lower()  # cloudpickle says "deep recursion" in words
        with pytest.raises(procflow.PicklingError):
            pool.map(crossing.give_what_refuses_to_pickle, [raised] * 3)
        assert pool.apply(os.getpid) == pid


def test_what_is_slow_to_unpickle_holds_nobody_else_up(ctx: procflow.Context, tmp_path: Path) -> None:
    """Neither in the worker, nor in the program: there it is rebuilt by who asks for it."""
    with ctx.Pool(2) as pool:
        slow_argument = pool.submit(crossing.give, crossing.SlowToUnpickle(tmp_path / "gate"))
        assert pool.map(tasks.double, range(100)) == [2 * n for n in range(100)]
        assert [pool.submit(tasks.double, n).result(DEADLOCK) for n in range(20)] == [2 * n for n in range(20)]
        pool.submit(crossing.open_gate, tmp_path / "gate").result(DEADLOCK)
        assert isinstance(slow_argument.result(DEADLOCK), crossing.SlowToUnpickle)
        slow_result = pool.submit(crossing.SlowToUnpickle, tmp_path / "other gate")
        slow_result.wait(DEADLOCK)
        assert pool.map(tasks.double, range(100)) == [2 * n for n in range(100)]
        (tmp_path / "other gate").touch()
        assert isinstance(slow_result.result(DEADLOCK), crossing.SlowToUnpickle)
