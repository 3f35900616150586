"""Classes that travel by value: one that comes back is the caller's own, and stays as the caller has made it.

C1  A class has an id, which goes with it (cloudpickle's). Who knows the id takes the class that he has.
C2  A fork of the process that made the class may have given it no id before: its address is found there.
C3  Only the process in which the class was made changes the copies of it. What comes back changes nothing.
C4  Its attributes have versions, as names do (versions.py): what a worker sets on a copy stays, unless it is changed
    where the class was made.
"""

from __future__ import annotations

import os
import sys
from weakref import WeakKeyDictionary, WeakSet

from procflow.start import child, main_module
from procflow.start.versions import Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Hint = tuple[int, int, type, str] | None  # C2: the process, the address, and to make sure: a base, and the name

__all__ = ["fill_class", "inherit", "make_class", "note_classes", "reduce_class"]

_came: WeakSet[type] = WeakSet()  # classes that were rebuilt in this process
_filled: WeakSet[type] = WeakSet()  # of these, the ones that have got their attributes
_tables: WeakKeyDictionary[type, Table] = WeakKeyDictionary()  # C4, of those that were sent or have come


def reduce_class(cls: type, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    """Turn cloudpickle's reduction of `cls` into one that holds C1 to C3."""
    make, args, (attributes, slots), _, _, fill = reduced
    came = cls in _came
    hint = None
    if child.forked and child.parent_pid and not came:
        hint = child.parent_pid, id(cls), cls.__bases__[0], cls.__qualname__
    # cloudpickle forgets the qualified name: a local class would then be looked for in its module.
    attributes = {**attributes, "__qualname__": cls.__qualname__}
    versions = _table(cls).sent(attributes)
    state = attributes, slots, fill, versions, not came and hint is None
    return make_class, (make, args, hint), state, None, None, fill_class


def make_class(make: Callable[..., type], args: tuple[Any, ...], hint: Hint) -> type:
    """The class of this id, or a new one without attributes."""
    from cloudpickle import cloudpickle  # pyright: ignore[reportMissingTypeStubs]

    tracked: Any = cloudpickle
    class_id = args[-2]
    known: type | None = tracked._DYNAMIC_CLASS_TRACKER_BY_ID.get(class_id)
    if known is None and hint is not None and hint[0] == os.getpid():
        known = _find_at(*hint[1:])
        if known is not None:
            tracked._lookup_class_or_track(class_id, known)
    if known is not None:
        return known
    made = make(*args)
    _came.add(made)
    return made


def _find_at(address: int, base: type, name: str) -> type | None:
    heirs: list[type] = type.__subclasses__(base)
    return next((cls for cls in heirs if id(cls) == address and cls.__qualname__ == name), None)


def fill_class(cls: type, state: tuple[Any, ...]) -> None:
    """Give it its attributes, if it is new, or what has changed of them where it was made."""
    attributes, slots, fill, versions, own = state
    new = cls in _came and cls not in _filled
    if not own and not new:
        return
    taken = _table(cls).take(attributes, versions, vars(cls))
    fill(cls, (attributes if new else taken, slots))
    _filled.add(cls)


def _table(cls: type) -> Table:
    table = _tables.get(cls)
    return _tables.setdefault(cls, Table({})) if table is None else table


def note_classes(values: Iterable[object]) -> None:
    """Let a fork, which is about to be made, know those classes among these that travel by value, and their bases."""
    found = {base for value in values if isinstance(value, type) for base in value.__mro__}
    for cls in filter(_goes_by_value, found):
        from cloudpickle import cloudpickle  # pyright: ignore[reportMissingTypeStubs]

        tracked: Any = cloudpickle
        tracked._get_or_create_tracker_id(cls)
        _table(cls).noted(vars(cls))


def _goes_by_value(cls: type) -> bool:
    if getattr(sys.modules.get(cls.__module__), cls.__name__, None) is not cls:
        return True
    return cls.__module__ == "__main__" and main_module.by_value()


def inherit() -> None:
    """In a fork of the parent, which has all its classes."""
    for cls, table in _tables.items():
        table.inherit(vars(cls))
