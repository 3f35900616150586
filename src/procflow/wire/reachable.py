"""Reachable: what a child is given, seen from the outside: the objects inside a target and its arguments."""

from __future__ import annotations

import functools
import types
from collections import deque
from itertools import islice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TypeVar, cast

    T = TypeVar("T")
else:

    def cast(_kind, obj):
        return obj


__all__ = ["reachable"]

LIMIT = 10_000  # objects looked at: more than arguments have, and bounded whatever data they hold
_LEAVES = (str, bytes, bytearray, int, float, complex, type, types.ModuleType, type(None))
_CONTAINERS = (list, tuple, set, frozenset, deque)


def reachable(root: object, kind: type[T], *, inherited: bool) -> Iterator[T]:
    """Yield the objects of one kind in `root`, each once, the nearest first. Looks at LIMIT objects at most.

    Asks for an object's type and its `__dict__` only, so that it wakes no lazy object and no proxy.

    Args:
        root: A target with its arguments, or the `__dict__` of a Process.
        kind: What to yield.
        inherited: Also follow the global variables that a function names: a forked child has them.
    """
    todo: deque[object] = deque([root])
    seen: dict[int, object] = {}  # with the object, so that no id is used twice
    for _ in range(LIMIT):
        if not todo:
            return
        obj = todo.popleft()
        if issubclass(type(obj), _LEAVES) or id(obj) in seen:
            continue
        seen[id(obj)] = obj
        if issubclass(type(obj), kind):
            yield cast("T", obj)
        todo.extend(islice(_inside(obj, inherited=inherited), LIMIT))


def _inside(obj: object, *, inherited: bool) -> Iterable[object]:
    kind = type(obj)
    if issubclass(kind, dict):
        entries = cast("dict[object, object]", obj)
        return [*islice(entries, LIMIT), *islice(entries.values(), LIMIT)]
    if issubclass(kind, _CONTAINERS):
        return cast("Iterable[object]", obj)
    if isinstance(obj, types.FunctionType):
        return _inside_function(obj, inherited=inherited)
    if isinstance(obj, types.MethodType):
        return [obj.__self__, obj.__func__]
    if isinstance(obj, functools.partial):
        partial = cast("functools.partial[object]", obj)
        return [partial.func, partial.args, partial.keywords]
    try:
        return [vars(obj)]
    except (TypeError, AttributeError):
        return []  # it has slots: what it holds is its own affair


def _inside_function(function: types.FunctionType, *, inherited: bool) -> list[object]:
    inside: list[object] = [function.__defaults__, function.__kwdefaults__]
    for cell in function.__closure__ or ():
        try:
            inside.append(cell.cell_contents)
        except ValueError:
            pass  # not yet assigned
    if inherited:
        inside.extend(function.__globals__.get(name) for name in function.__code__.co_names)
    return inside
