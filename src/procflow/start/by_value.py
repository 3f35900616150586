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

from procflow.start import main_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["dumps_by_value"]

_picklers: dict[bool, Callable[[io.BytesIO, Any], Any]] = {}  # by whether __main__ goes by name


def dumps_by_value(
    obj: object, buffer_callback: Callable[[pickle.PickleBuffer], object] | None = None, *, foreign: bool = False
) -> bytes:
    """Pickle `obj` with its functions and classes inside, where another process could not import them.

    `foreign`: it is no child of this one, so it can't run the script again.
    """
    by_name = not foreign and not main_module.by_value()
    make = _picklers.get(by_name)
    if make is None:
        make = _picklers[by_name] = _pickler_class(by_name)
    buffer = io.BytesIO()
    make(buffer, buffer_callback).dump(obj)
    return buffer.getvalue()


def _pickler_class(by_name: bool) -> Callable[[io.BytesIO, Any], Any]:
    """Make the class at its first use: cloudpickle and multiprocessing take 40 ms to import."""
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

        def reducer_override(self, obj: object) -> Any:
            if by_name and _is_global_of_main(obj):
                return NotImplemented
            by_value: Any = super()
            return by_value.reducer_override(obj)

    return lambda buffer, callback: Pickler(buffer, pickle.HIGHEST_PROTOCOL, callback)


def _is_global_of_main(obj: object) -> bool:
    if getattr(obj, "__module__", None) not in ("__main__", "__mp_main__"):
        return False
    found: object = sys.modules.get("__main__")
    for part in str(getattr(obj, "__qualname__", "")).split("."):
        found = getattr(found, part, None)
    return found is obj
