"""What crosses between processes in the fault suite, and what refuses to."""

from __future__ import annotations

import builtins
import time
from pathlib import Path
from typing import Any, NoReturn


class Falsy(Exception):
    def __bool__(self) -> bool:
        return False

    def __len__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not to be compared")

    __hash__ = Exception.__hash__


class TwoArguments(Exception):
    """Its constructor takes other arguments than its `args` say."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code, self.text = code, text


class Reduced(Exception):
    """A constructor of its own, and it says how it is rebuilt."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code, self.text = code, text

    def __reduce__(self) -> Any:
        return type(self), (self.code, self.text)


class RefusesToUnpickle:
    """It pickles; rebuilding it raises."""

    def __init__(self, raised: str) -> None:
        self.raised = raised

    def __reduce__(self) -> Any:
        return _raise, (self.raised,)


def _raise(name: str) -> NoReturn:
    raise getattr(builtins, name)("while it is rebuilt")


def give(value: object) -> object:
    return value


def give_unpicklable(raised: str) -> object:
    return RefusesToUnpickle(raised)


def give_exception() -> Exception:
    return ValueError("returned, not raised")


def raise_falsy() -> None:
    raise Falsy("here")


def raise_two_arguments() -> None:
    raise TwoArguments(7, "here")


def raise_reduced() -> None:
    raise Reduced(7, "here")


def raise_with_everything() -> None:
    error = ValueError("outer")
    error.add_note("a note")
    error.code = 7  # type: ignore[attr-defined]
    try:
        raise KeyError("inner")
    except KeyError as cause:
        raise error from cause


def raise_in_context() -> None:
    try:
        raise KeyError("inner")
    except KeyError:
        raise ValueError("outer")  # noqa: B904 - the context is the subject


def raise_group() -> None:
    inner = TypeError("b")
    inner.add_note("of b")
    raise ExceptionGroup("several", [ValueError("a"), ExceptionGroup("more", [inner])])


def raise_holding_a_lock() -> None:
    import threading

    raise ValueError("held", threading.Lock())


def raise_huge() -> None:
    raise ValueError("x" * 5_000_000)


class SlowToUnpickle:
    """Rebuilding it takes until a file is there."""

    def __init__(self, gate: Path) -> None:
        self.gate = gate

    def __reduce__(self) -> Any:
        return _rebuild_slowly, (self.gate,)


def _rebuild_slowly(gate: Path) -> SlowToUnpickle:
    while not gate.exists():
        time.sleep(0.002)
    return SlowToUnpickle(gate)


class RefusesToPickle:
    """In the worker: there its reduction raises."""

    def __init__(self, raised: str) -> None:
        self.raised = raised

    def __reduce__(self) -> Any:
        raise getattr(builtins, self.raised)("while it is pickled")


def give_what_refuses_to_pickle(raised: str) -> object:
    return RefusesToPickle(raised)


def open_gate(gate: Path) -> None:
    gate.touch()
