"""Reachable: what a child is given, seen from the outside: the objects inside a target and its arguments."""

from __future__ import annotations

import types
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import cast
else:

    def cast(_kind, obj):
        return obj


__all__ = ["reachable"]

LIMIT = 10_000  # objects: enough for what arguments look like, and bounded for what they may hold
_LEAVES = (str, bytes, bytearray, int, float, complex, type, types.ModuleType, type(None))


def reachable(root: object, *, inherited: bool) -> Iterator[object]:
    """Yield the objects in `root`, each once, at most LIMIT of them, the nearest first.

    Args:
        root: A target with its arguments, or the `__dict__` of a Process.
        inherited: Also follow the global variables that a function names: a forked child has them.
    """
    todo: deque[object] = deque([root])
    seen: dict[int, object] = {}  # with the object, so that no id is used twice
    while todo and len(seen) < LIMIT:
        obj = todo.popleft()
        if isinstance(obj, _LEAVES) or id(obj) in seen:
            continue
        seen[id(obj)] = obj
        yield obj
        todo.extend(_inside(obj, inherited=inherited))


def _inside(obj: object, *, inherited: bool) -> Iterable[object]:
    if isinstance(obj, dict):
        entries = cast("dict[object, object]", obj)
        return [*entries, *entries.values()]
    if isinstance(obj, list | tuple | set | frozenset | deque):
        return list(cast("Iterable[object]", obj))
    if isinstance(obj, types.FunctionType):
        return _inside_function(obj, inherited=inherited)
    if isinstance(obj, types.MethodType):
        return [obj.__self__, obj.__func__]
    inside: list[object] = [getattr(obj, name, None) for name in ("func", "args", "keywords")]  # functools.partial
    try:
        inside.append(vars(obj))
    except TypeError:
        pass  # it has slots: what it holds is its own affair
    return inside


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
