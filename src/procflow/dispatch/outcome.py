"""What came back for some items, values and failures: decoded by who asks for it, never by who merely carries it."""

from __future__ import annotations

from procflow.engines.base import OBJECTS, RAISED
from procflow.errors import RemoteError, UnpicklingError
from procflow.shown import told
from procflow.start.interrupted import of_a_signal
from procflow.wire.packets import FAILURE, VALUE
from procflow.wire.pickling import loads, stream_of, unpack
from procflow.worker.failure import unpack_failure

__all__ = ["Failure", "decode"]


class Failure:
    """An exception that a task ended with. Its own type, so that a task may return an exception object."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


def decode(kind: int, data: object) -> list[object] | Failure:
    """Return the values of a segment, or its failure. Whatever user code does while unpickling ends in the failure."""
    if kind == OBJECTS:
        return data  # type: ignore[return-value]
    if kind == RAISED:
        return Failure(data)  # type: ignore[arg-type]
    try:
        if kind == FAILURE:
            return Failure(unpack_failure(stream_of(data)))  # type: ignore[arg-type]
        value = loads(data) if type(data) is bytes else unpack(data)  # type: ignore[arg-type]
    except BaseException as refusal:
        if of_a_signal(refusal):
            raise
        if kind == FAILURE:
            return Failure(RemoteError("an exception", told(refusal), "", "it did not unpickle"))
        error = UnpicklingError(
            f"the task's result was pickled in the worker but can't be rebuilt here: "
            f"{told(refusal)}. "
            "Its class may take other arguments than its __reduce__ gives, or its module differs from the worker's."
        )
        error.__cause__ = refusal
        return Failure(error)
    return [value] if kind == VALUE else value
