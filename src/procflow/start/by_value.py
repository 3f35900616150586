"""Pickling by value, for what plain pickle refuses or what no other process could import.

V1  What `__main__` defines under its own name goes by name if it is for a child that can run the script again, so that
    instances of its classes come back with the caller's own class; else by value, like lambdas and closures.
V2  multiprocessing's reducers (connections, sockets, partial methods) are known here, also those that a user registers.
V3  An open file is refused; cloudpickle would send its text.
"""

from __future__ import annotations

import io
import pickle
import sys
from types import FunctionType

from procflow.start import classes, main_module, places
from procflow.start.main_module import CHILD, FOREIGN, HOME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["dumps_by_value"]

_WITH_SETTER = 6  # parts of a reduction: make, its arguments, state, two of no use here, what fills in the state

_pickler: Callable[[io.BytesIO, Any, bool, bool], Any] | None = None


def dumps_by_value(
    obj: object, buffer_callback: Callable[[pickle.PickleBuffer], object] | None = None, *, to: int = CHILD
) -> bytes:
    """Pickle `obj` with its functions and classes inside, where another process could not import them."""
    make = _pickler or _make_pickler()
    buffer = io.BytesIO()
    make(buffer, buffer_callback, to != FOREIGN and not main_module.by_value(), to == HOME).dump(obj)
    return buffer.getvalue()


def _make_pickler() -> Callable[[io.BytesIO, Any, bool, bool], Any]:
    """Make the class at its first use: cloudpickle and multiprocessing take 40 ms to import."""
    global _pickler
    from collections import ChainMap
    from multiprocessing import reduction

    import cloudpickle  # pyright: ignore[reportMissingTypeStubs]

    base: Any = cloudpickle.Pickler
    forking: Any = reduction.ForkingPickler
    known: dict[Any, Any] = dict(base.dispatch_table)
    known.pop(io.TextIOWrapper, None)  # V3

    class Pickler(base):  # type: ignore[misc]  # cloudpickle has no types
        # On the class: the C pickler looks for it when it is made, and no later.
        dispatch_table: Any = ChainMap(forking._extra_reducers, known)  # noqa: RUF012

        def __init__(self, buffer: io.BytesIO, callback: Any, by_name: bool, home: bool) -> None:
            cloud: Any = super()
            cloud.__init__(buffer, pickle.HIGHEST_PROTOCOL, callback)
            self._by_name, self._home = by_name, home

        def reducer_override(self, obj: object) -> Any:
            if (self._by_name and _is_global_of_main(obj)) or (self._home and main_module.is_inherited(obj)):
                return NotImplemented
            cloud: Any = super()
            reduced: Any = cloud.reducer_override(obj)
            if reduced is not NotImplemented and len(reduced) == _WITH_SETTER:
                if isinstance(obj, FunctionType):
                    return places.reduce_function(obj, reduced, home=self._home)
                if isinstance(obj, type):
                    return classes.reduce_class(obj, reduced)
            return reduced

    _pickler = Pickler
    return Pickler


def _is_global_of_main(obj: object) -> bool:
    if getattr(obj, "__module__", None) not in ("__main__", "__mp_main__"):
        return False
    found: object = sys.modules.get("__main__")
    for part in str(getattr(obj, "__qualname__", "")).split("."):
        found = getattr(found, part, None)
    return found is obj
