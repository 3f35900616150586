"""Which part of an object is it that does not pickle: the path to it, as one would write it in Python."""

from __future__ import annotations

from types import FunctionType, MethodType

from procflow.shown import shown
from procflow.start.interrupted import of_a_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

__all__ = ["first_culprit", "path_to_culprit"]

TRIES_MOST = 10_000  # parts that are pickled to find it
DEPTH_MOST = 50
PAIR = 2
# As values: what a type checker would make of their parameters is of no use here.
DICT: Any = dict
SEQUENCES: Any = (list, tuple)
SETS: Any = (set, frozenset)


def first_culprit(parts: Mapping[str, object], dumps: Callable[[object], object]) -> str:
    """Return the path to the culprit in the first of these that is refused, by its name; "" if none is by itself."""
    search = _Search(dumps)
    for name, part in parts.items():
        if search.refuses(part):
            return path_to_culprit(part, name, dumps)
    return ""


def path_to_culprit(obj: object, name: str, dumps: Callable[[object], object]) -> str:
    """Return where in `obj`, which `dumps` refuses, the innermost part is that it refuses; `name` if that is all of it.

    Each part is tried by itself. It is looked for as long as that promises to be quick.
    """
    return _Search(dumps).below(obj, name, [obj])[0]


class _Search:
    def __init__(self, dumps: Callable[[object], object]) -> None:
        self._dumps = dumps
        self._tries = TRIES_MOST

    def below(self, obj: object, name: str, above: list[object]) -> tuple[str, bool]:
        """Return the path, and whether that is it; else it may be refused for what it holds of `above`, a cycle."""
        found, sure = name, True
        if len(above) > DEPTH_MOST:
            return found, sure
        for suffix, part in _parts(obj):
            if any(part is other for other in above):
                sure = False
                continue
            self._tries -= 1
            if self._tries < 0:
                break
            if self.refuses(part):
                found, sure = self.below(part, name + suffix, [*above, part])
                if sure:
                    break
        return found, sure

    def refuses(self, part: object) -> bool:
        try:
            self._dumps(part)
        except BaseException as error:  # the user's own reductions: anything may be raised
            if of_a_signal(error):
                raise
            return True
        return False


def _parts(obj: Any) -> Iterator[tuple[str, object]]:
    if isinstance(obj, FunctionType):
        yield from _of_function(obj)
    elif isinstance(obj, MethodType):
        yield ".__self__", obj.__self__
    elif not isinstance(obj, type):
        if isinstance(obj, DICT):
            for key, value in obj.items():
                yield f"[{shown(key)}]", value
                yield f" (its key {shown(key)})", key
        elif isinstance(obj, SEQUENCES):
            for place, part in enumerate(obj):
                yield f"[{place}]", part
        elif isinstance(obj, SETS):
            for part in obj:
                yield f" (its element {shown(part)})", part
        yield from _of_reduction(obj)


def _of_function(function: FunctionType) -> Iterator[tuple[str, object]]:
    """What travels with a function that goes by value."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f" (its variable {name!r})", cell.cell_contents
        except ValueError:  # not bound yet
            pass
    for name in function.__code__.co_names:
        if name in function.__globals__:
            yield f" (its global {name!r})", function.__globals__[name]
    for part in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        yield " (a default of its parameters)", part


def _of_reduction(obj: Any) -> Iterator[tuple[str, object]]:
    try:
        reduced: Any = obj.__reduce_ex__(5)
    except BaseException as error:  # it is the culprit itself
        if of_a_signal(error):
            raise
        return
    if not isinstance(reduced, SEQUENCES):
        return
    _, args, state, items = (*reduced, None, None, None)[:4]  # copyreg
    # A pair: of its __dict__, or None, and of its __slots__.
    paired = isinstance(state, SEQUENCES) and len(state) == PAIR  # pyright: ignore[reportArgumentType]
    states: Any = state if paired else (state,)
    if all(attributes is None or isinstance(attributes, DICT) for attributes in states):
        for attributes in states:
            named: dict[str, object] = attributes or {}
            for name, value in named.items():
                yield f".{name}", value
    else:
        yield " (its state)", state
    for place, part in enumerate(args or ()):
        yield f" (argument {place} of its constructor)", part
    if not isinstance(obj, SEQUENCES):
        for part in items or ():
            yield " (an item of it)", part
