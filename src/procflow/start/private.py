"""What procflow needs of the standard library and the standard library does not document, in one place.

When a new Python moves one of these, this module says so at its import, and it is the only one to mend. (What a child
must reach without importing multiprocessing is looked up in `sys.modules` there: adopt.py, child.py.)
"""

from __future__ import annotations

from multiprocessing import process as _process
from multiprocessing import util as _util

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_any_process: Any = _process
_any_util: Any = _util

flush_std_streams: Callable[[], None] = _any_util._flush_std_streams
interpreter_flags: Callable[[], list[str]] = _any_util._args_from_interpreter_flags
run_after_forkers: Callable[[], None] = _any_util._run_after_forkers
finalizers: dict[Any, Any] = _any_util._finalizer_registry


def original_dir() -> str | None:
    """The directory in which the program was started, which '' in sys.path stands for."""
    found: str | None = _any_process.ORIGINAL_DIR
    return found


def logging() -> tuple[int, bool] | None:
    """The level of multiprocessing's logger and whether it logs to stderr; None if nobody has used it."""
    if _any_util._logger is None:
        return None
    return _util.get_logger().getEffectiveLevel(), bool(_any_util._log_to_stderr)


def lock_made_for_fork(refused: BaseException) -> str | None:
    """The type's name of the lock that refused to be pickled because only forked children can have it."""
    trace = refused.__traceback__
    if trace is None:
        return None
    while trace.tb_next is not None:
        trace = trace.tb_next
    lock = trace.tb_frame.f_locals.get("self")  # SemLock.__getstate__ raises it; its text is for people, and may change
    return type(lock).__name__ if getattr(lock, "_is_fork_ctx", False) is True else None
