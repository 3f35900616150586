"""Objects to bytes and back: plain pickle first, by value only what plain pickle refuses.

plain pickle, protocol 5         what almost everything needs, and the fastest
by value (cloudpickle)           lambdas, closures, local classes; and what `__main__` defines, where `__main__` is a
                                 notebook, a REPL, `-c` or standard input, which another process can't import
multiprocessing's own reducers   connections, sockets, partial methods: they are known to the second pickler, too
"""

from __future__ import annotations

import pickle
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["PROTOCOL", "dumps", "loads", "main_can_be_imported"]

PROTOCOL = 5

loads = pickle.loads
_dumps = pickle.dumps


def dumps(obj: object) -> bytes:
    """Pickle `obj`, by value where it must be.

    Raises:
        Exception: What the object's own reduction raised, or why pickle refuses it; the last try's error, with the
            first as its context.
    """
    try:
        data = _dumps(obj, PROTOCOL)
    except Exception:  # noqa: BLE001 - the object's own reduction: anything may be raised
        return dumps_by_value(obj)
    if b"__main__" in data and not main_can_be_imported():
        return dumps_by_value(obj)
    if b"multiprocessing.connection" in data:  # plain pickle copies the number of its descriptor, which is no use there
        return dumps_by_value(obj)
    return data


def dumps_by_value(obj: object) -> bytes:
    """Pickle `obj` with its functions and classes inside, where another process could not import them."""
    return _by_value_dumps()(obj)


def main_can_be_imported() -> bool:
    """Tell whether another process can run the program's `__main__` again: a module or a script file."""
    main = sys.modules.get("__main__")
    if getattr(main, "__spec__", None) is not None:
        return True
    path = getattr(main, "__file__", None)
    return path is not None and not path.startswith("<") and not getattr(sys, "ps1", None)


def _by_value_dumps() -> Callable[[object], bytes]:
    """Build the second pickler at its first use: cloudpickle and multiprocessing take 40 ms to import."""
    global _by_value
    if _by_value is None:
        import io
        from collections import ChainMap
        from multiprocessing.reduction import ForkingPickler

        import cloudpickle  # pyright: ignore[reportMissingTypeStubs]

        known = dict(cloudpickle.Pickler.dispatch_table)
        known.pop(io.TextIOWrapper, None)  # cloudpickle would send an open file's text; a user expects an error

        class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
            # multiprocessing's registry is live: what a user registers later is seen.
            dispatch_table = ChainMap(ForkingPickler._extra_reducers, known)  # type: ignore[attr-defined]  # noqa: RUF012

        def by_value(obj: object) -> bytes:
            buffer = io.BytesIO()
            pickler: Any = ByValuePickler(buffer, PROTOCOL)  # cloudpickle has no types
            pickler.dump(obj)
            return buffer.getvalue()

        _by_value = by_value
    return _by_value


_by_value: Callable[[object], bytes] | None = None
