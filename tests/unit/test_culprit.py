"""The path to what does not pickle, as an error names it."""

from __future__ import annotations

import pickle
import signal
import threading
from functools import partial
from typing import Any

import pytest

from procflow.start.culprit import path_to_culprit
from procflow.wire.pickling import dumps

LOCK = threading.Lock()


class Holder:
    """Has attributes."""

    def __init__(self, **attributes: object) -> None:
        self.__dict__.update(attributes)

    def method(self) -> None: ...


class Slotted:
    __slots__ = ("first", "second")

    def __init__(self, first: object, second: object) -> None:
        self.first, self.second = first, second


class Mine(list[object]):
    pass


class Raises:
    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __reduce__(self) -> str:
        raise self.error("mine")


class Constructed:
    def __init__(self, lock: object) -> None:
        self.lock = lock

    def __reduce__(self) -> tuple[object, ...]:
        return Constructed, (1, self.lock)


def closure(value: object) -> Any:
    return lambda: value


def cyclic() -> Holder:
    """It holds itself, and a lock."""
    made = Holder(a=[])
    made.a.append(made)  # type: ignore[attr-defined]
    made.lock = LOCK  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize(
    ("obj", "path"),
    [
        (LOCK, "x"),
        ([1, LOCK], "x[1]"),
        ((1, [2, LOCK]), "x[1][1]"),
        ({"a": 1, "b": LOCK}, "x['b']"),
        ({"a": {"b": [0, LOCK]}}, "x['a']['b'][1]"),
        ({(1, 2): LOCK}, "x[(1, 2)]"),
        (Holder(a=1, b=LOCK), "x.b"),
        (Holder(a=Holder(b=[LOCK])), "x.a.b[0]"),
        (Slotted(1, LOCK), "x.second"),
        (Slotted([LOCK], 1), "x.first[0]"),
        (Mine([1, LOCK]), "x[1]"),
        (Holder(lock=LOCK).method, "x.__self__.lock"),
        (partial(print, 1, end=LOCK), "x (its state)[2]['end']"),
        (closure(LOCK), "x (its variable 'value')"),
        (closure([Holder(a=LOCK)]), "x (its variable 'value')[0].a"),
        (lambda: LOCK, "x (its global 'LOCK')"),
        (lambda a=LOCK: a, "x (a default of its parameters)"),
        (Constructed(LOCK), "x (argument 1 of its constructor)"),
        (Holder(a=Raises(ValueError)), "x.a"),
        ([Raises(SystemExit)], "x[0]"),
        (cyclic(), "x.lock"),
        (iter([LOCK]), "x (argument 0 of its constructor)[0]"),
        (Holder(generator=(n for n in range(3))), "x.generator"),
    ],
)
def test_the_path_leads_to_what_does_not_pickle(obj: object, path: str) -> None:
    assert path_to_culprit(obj, "x", dumps) == path


def test_an_element_of_a_set_is_named() -> None:
    found = path_to_culprit({LOCK}, "x", dumps)
    assert found == f"x (its element {LOCK!r})"


def test_a_search_among_very_many_gives_up() -> None:
    tried: list[object] = []

    def refuses_long_ones(obj: object) -> None:
        tried.append(obj)
        if isinstance(obj, list):
            raise pickle.PicklingError

    assert path_to_culprit([list(range(100_000))], "x", refuses_long_ones) == "x[0]"
    assert len(tried) <= 10_000


def test_what_a_signal_handler_raises_is_not_taken_for_the_objects_refusal() -> None:
    def interrupt(_signum: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:

        def interrupted(_: object) -> None:
            signal.raise_signal(signal.SIGUSR1)

        with pytest.raises(KeyboardInterrupt):
            path_to_culprit([1], "x", interrupted)
    finally:
        signal.signal(signal.SIGUSR1, before)
