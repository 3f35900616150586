"""A failure on its way from a worker to the caller: the exception, or enough words to stand in for it."""

from __future__ import annotations

from procflow.shown import shown, told
from procflow.start import main_module
from procflow.start.main_module import HOME
from procflow.wire.pickling import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

__all__ = ["pack_failure", "unpack_failure"]

_TRACEBACK: Any = BaseException.__dict__["__traceback__"]


def pack_failure(error: BaseException, *, skip: str | None = None) -> bytes:
    """Pickle an exception with its traceback's text; whatever is wrong with the exception, this succeeds.

    The frames of package `skip` at the top are left out: the user's traceback begins with the user's function. The
    methods are BaseException's own, as a subclass may override them to raise anything.
    """
    try:
        trace: TracebackType | None = _TRACEBACK.__get__(error)
        while trace is not None and skip is not None and trace.tb_frame.f_globals.get("__package__") == skip:
            trace = trace.tb_next
        BaseException.with_traceback(error, trace)
        import traceback

        main_module.explain(error)
        text = "".join(traceback.format_exception(type(error), error, trace))
    except BaseException as broken:  # noqa: BLE001 - a __str__ that raises, a stack that is used up
        text = f"{type(error).__name__} (its traceback can't be shown: {type(broken).__name__})\n"
    try:
        data, why = dumps(error, to=HOME), ""
        loads(data)  # an exception whose constructor takes other arguments pickles, and then can't be rebuilt
    except BaseException as refusal:  # noqa: BLE001
        data, why = b"", told(refusal)
    return dumps((data, type(error).__qualname__, shown(error), text, why))


def unpack_failure(packed: bytes | memoryview) -> BaseException:
    """Rebuild the exception, with the worker's traceback as its cause; a RemoteError if it can't be rebuilt."""
    from procflow.errors import RemoteError, RemoteTraceback

    data, name, repr_text, text, why = loads(packed)
    if data:
        try:
            error = loads(data)
            if not isinstance(error, BaseException):
                raise TypeError(f"it was rebuilt as {type(error).__name__}")
        except Exception as refusal:  # noqa: BLE001 - its own reduction: anything may be raised
            why = told(refusal)
        else:
            if error.__cause__ is None:  # set past the class's own __setattr__: a frozen dataclass would refuse
                BaseException.__setattr__(error, "__cause__", RemoteTraceback(text))
            return error
    stand_in = RemoteError(name, repr_text, text, why)
    stand_in.__cause__ = RemoteTraceback(text)
    return stand_in
