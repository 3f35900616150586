"""Whose an exception is that comes out of user code: that code's, or a signal's, which has interrupted it."""

from __future__ import annotations

import signal
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

__all__ = ["of_a_signal"]


def of_a_signal(error: BaseException) -> bool:
    """Whether this is Ctrl-C, or was raised by one of the program's signal handlers: sys.exit() in one for SIGTERM.

    What user code raises is the failure of a task; this is for the program, which would go on as if nothing had come.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    if isinstance(error, KeyboardInterrupt):
        return True
    handlers = {_code_of(signal.getsignal(signum)) for signum in signal.valid_signals()} - {None}
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code not in handlers:
        trace = trace.tb_next
    return trace is not None


def _code_of(handler: Any) -> CodeType | None:
    """The code of a function, a method, a partial, or an object that can be called; None if it is not Python's."""
    while hasattr(handler, "func"):
        handler = handler.func
    if not hasattr(handler, "__code__"):  # a method has its function's
        handler = getattr(handler, "__call__", None)  # noqa: B004 - its code is looked for
    code: CodeType | None = getattr(handler, "__code__", None)
    return code
