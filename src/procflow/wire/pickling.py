"""Objects to bytes and back: plain pickle first, by value only what plain pickle refuses.

    plain pickle, protocol 5    what almost everything needs, and the fastest
    by value (cloudpickle)      lambdas, closures, local classes; and what `__main__` defines, where `__main__` is a
                                notebook, a REPL, `-c` or standard input, which another process can't import

multiprocessing's own reducers (connections, sockets, partial methods) are known to the second one.
"""

from __future__ import annotations

import pickle

from procflow.start import main_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from procflow.errors import PicklingError

__all__ = ["PROTOCOL", "dumps", "dumps_with_buffers", "loads", "not_picklable"]

PROTOCOL = 5
_BESIDE = 32 * 1024  # bytes: below it, a copy inside the pickle costs less than a part of its own

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
        return _dumps_by_value(obj)
    if b"__main__" in data and main_module.by_value():
        return _dumps_by_value(obj)
    if b"multiprocessing.connection" in data:  # plain pickle copies the number of its descriptor, which is no use there
        return _dumps_by_value(obj)
    return data


def dumps_with_buffers(obj: object) -> tuple[bytes, list[memoryview]]:
    """Pickle `obj` as `dumps` does, with large contiguous buffers beside the pickle: for `loads(data, buffers=...)`."""
    buffers: list[memoryview] = []

    def keep_inside(buffer: pickle.PickleBuffer) -> bool:
        try:
            view = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if view.nbytes < _BESIDE:
            return True
        buffers.append(view)
        return False

    try:
        data = _dumps(obj, PROTOCOL, buffer_callback=keep_inside)
    except Exception:  # noqa: BLE001 - the object's own reduction: anything may be raised
        return _dumps_by_value(obj), []
    if (b"__main__" in data and main_module.by_value()) or b"multiprocessing.connection" in data:
        return _dumps_by_value(obj), []
    return data, buffers


def _dumps_by_value(obj: object) -> bytes:
    from procflow.start.by_value import dumps_by_value

    return dumps_by_value(obj)


def not_picklable(what: str, refusal: BaseException) -> PicklingError:
    """Return the error for a call or an item that `dumps` refused."""
    from procflow.errors import PicklingError
    from procflow.wire.shown import told

    error = PicklingError(
        f"{what} can't be pickled, so it can't be sent to a worker: {told(refusal)}. Does it hold a lock, a file or a "
        "connection? Make that in the task or in the initializer; locks and queues of processes go through `initargs`."
    )
    error.__cause__ = refusal
    return error
