"""The globals of functions that travel by value: those that were defined in one place find one namespace in a child.

A *place* is the dict in which they were defined: that of `__main__`, or of a doctest or an exec(). Functions of modules
that can be imported keep cloudpickle's way: a copy of the globals that they mention.

G1  In a child a place is one dict, whatever pickle its functions came in; that of `__main__` is the child's `__main__`.
    So what an initializer has set there is what tasks find.
G2  Each name comes with a version (versions.py). Its value replaces the child's own only if the parent has changed it
    since the child got it: what a worker keeps in its globals stays, and a redefinition takes effect. What an
    initializer mentions counts as got (`note`): the worker has it from the fork, or from running the script.
G3  Names go down only. What comes from another process than the parent adds names that are missing, and replaces none;
    functions that came from the parent go back without their names, others without those that the parent has.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from types import FunctionType, MethodType
from weakref import WeakSet

from procflow.start import child, classes, main_module
from procflow.start.versions import Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType
    from typing import Any

    Names = dict[str, Any]  # the globals of Python code: anything
    Key = tuple[int, int]  # the process in which the place is, and the address of the dict there; `_MAIN`: (0, 0)

__all__ = ["fill_function", "inherit", "make_function", "note", "receive_notes", "reduce_function"]

_MAIN = (0, 0)
_DEEPEST = 16  # wrappers around a function
_MOST_PLACES = 32  # besides `__main__`; the one that was not met for the longest time is forgotten


class _Place:
    __slots__ = ("names", "versions")

    def __init__(self, names: Names, origin: Names | None = None) -> None:
        self.names = names
        self.versions = Table({} if origin is None else origin)

    def receive(self, names: Names, versions: dict[str, int], sender: int) -> None:
        if sender == child.parent_pid:
            self.names.update(self.versions.take(names, versions, self.names))
            return
        for name, value in names.items():  # G3
            self.names.setdefault(name, value)


_main: _Place | None = None
_others: dict[Key, _Place] = {}  # threads may find a place at the same time: each step is one operation on the dict


def _main_place() -> _Place:
    global _main
    names = vars(sys.modules["__main__"])
    if _main is None or _main.names is not names:
        _main = _Place(names, main_module.origin())
    return _main


def _other_place(key: Key, names: Names) -> _Place:
    place = _others.pop(key, None) or _Place(names)
    _others[key] = place  # the last one now
    while len(_others) > _MOST_PLACES:
        _others.pop(next(iter(_others)), None)
    return place


def _find(names: Names) -> tuple[Key, _Place] | None:
    """The place with these globals; None if they are those of a module that can be imported."""
    if names is vars(sys.modules["__main__"]):
        return _MAIN, _main_place()
    module = sys.modules.get(names.get("__name__", ""))
    if module is not None and getattr(module, "__dict__", None) is names:
        return None
    for key, place in list(_others.items()):
        if place.names is names:
            return key, place
    key = os.getpid(), id(names)
    return key, _other_place(key, names)


# ---- sending

_came: WeakSet[FunctionType] = WeakSet()  # functions that were rebuilt in this process


def reduce_function(function: FunctionType, reduced: tuple[Any, ...], *, home: bool) -> tuple[Any, ...]:
    """Turn cloudpickle's reduction of `function` into one with a place. `home`: it goes to the parent."""
    found = _find(function.__globals__)
    if found is None:
        return reduced
    key, place = found
    code, base, _, _, closure = reduced[1]
    attributes: Names = reduced[2][0]
    slots: Names = reduced[2][1]
    names: Names = slots["__globals__"]
    if home:
        names = {} if function in _came else place.versions.unknown_to_parent(names)
    slots = {**slots, "__globals__": {}}  # what is left to cloudpickle
    state = attributes, slots, reduced[5], names, place.versions.sent(names), os.getpid()
    return make_function, (code, key, base, closure), state, None, None, fill_function


def note(*makers: object, forks: bool) -> dict[str, int]:
    """Note that a child will have the names that these mention, without that they are sent to it.

    Args:
        makers: What a worker calls before its tasks: its initializer, what makes its context.
        forks: The child is a fork of this process. What comes from a place that no child can find travels by value
            to others, and brings its own versions.

    Returns:
        For `receive_notes`: the versions of those in `__main__`. A fork has them as it has the names.
    """
    versions: dict[str, int] = {}
    for maker in makers:
        if forks:
            classes.note_classes([getattr(maker, "__self__", None)])  # of a class method
        for function in _functions_of(_unwrapped(maker)):
            found = _find(function.__globals__)
            if found is None:
                continue
            key, place = found
            names: Names = {}
            _collect(function, names)
            noted = place.versions.noted(names)
            if key == _MAIN:
                versions |= noted
            if forks:
                classes.note_classes(names.values())
    return versions


def _unwrapped(maker: Any) -> object:
    """What is called in the end: behind partial, a method, functools.wraps (as of contextlib.contextmanager)."""
    for _ in range(_DEEPEST):
        if isinstance(maker, partial):
            maker = maker.func
        elif isinstance(maker, MethodType):
            maker = maker.__func__
        elif hasattr(maker, "__wrapped__"):
            maker = maker.__wrapped__
        else:
            break
    found: object = maker
    return found


def _functions_of(value: object) -> list[FunctionType]:
    if isinstance(value, FunctionType):
        return [value]
    kind = value if isinstance(value, type) else type(value)
    return [part for part in vars(kind).values() if isinstance(part, FunctionType)]


def _collect(function: FunctionType, found: Names) -> None:
    names = function.__globals__
    for name in _mentioned(function.__code__):
        if name in names and name not in found:
            value = found[name] = names[name]
            if isinstance(value, FunctionType | type):
                for part in _functions_of(value):
                    if part.__globals__ is names:
                        _collect(part, found)


def _mentioned(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, type(code)):
            yield from _mentioned(constant)


# ---- receiving


def make_function(code: CodeType, key: Key, base: Names, closure: tuple[Any, ...] | None) -> FunctionType:
    """The function with the globals of its place; `fill_function` does the rest."""
    names = vars(sys.modules["__main__"]) if key == _MAIN else _other_place(key, base).names
    made = FunctionType(code, names, None, None, closure)
    _came.add(made)
    return made


def fill_function(function: FunctionType, state: tuple[Any, ...]) -> None:
    """Give it what it mentions, its defaults, closure and attributes."""
    attributes, slots, fill, names, versions, sender = state
    there = function.__globals__
    found = _find(there)
    if found is not None:
        found[1].receive(names, versions, sender)
    builtins = there.get("__builtins__")
    fill(function, (attributes, slots))
    if builtins is not None:
        there["__builtins__"] = builtins  # cloudpickle has put its own there: a dict, and in `__main__` it is a module


def receive_notes(versions: dict[str, int]) -> None:
    """In a child: what `note` has returned in the parent."""
    _main_place().versions.have(versions)


def inherit() -> None:
    """In a fork of the parent, which has all its names."""
    for place in [_main_place(), *_others.values()]:
        place.versions.inherit(place.names)
    classes.inherit()
