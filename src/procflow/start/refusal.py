"""Why something can't be given to a child: which of the things that the user gave, and what to do about it.

Imported when a pickle was refused, and no sooner.
"""

from __future__ import annotations

import multiprocessing.context
import traceback

from procflow.errors import PicklingError
from procflow.start import private
from procflow.start.culprit import path_to_culprit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["explain"]

_MAKERS = {
    "Synchronized": "Value",
    "SynchronizedArray": "Array",
    "SynchronizedString": "Array",
}  # of what has other names


class LockRefused(PicklingError, RuntimeError):
    """A lock that was made for forked children. multiprocessing raises RuntimeError, which programs may catch."""


def explain(
    refused: Exception, parts: Mapping[str, object], whose: str, method: str, dumps: Callable[[object], object]
) -> PicklingError:
    """Return the error for the user. The arguments are those of `dumps_for_child`, and how it pickles."""
    name, kind = _first_refused(parts, dumps)
    culprit = path_to_culprit(parts[name], name, dumps) if name else ""
    what = f"{name} of {whose}, of type {kind}," if name else whose
    where = f" (It is {culprit}.)" if culprit != name else ""
    error = LockRefused if private.lock_made_for_fork(refused) is not None else PicklingError
    return error(
        f"{what} can't be given to a child of the start method {method!r}: {_why(refused, kind, method)}{where}"
    )


def _first_refused(parts: Mapping[str, object], dumps: Callable[[object], object]) -> tuple[str, str]:
    for name, part in parts.items():
        try:
            dumps(part)
        except Exception:  # noqa: BLE001 - an object's own reduction may raise anything
            return name, type(part).__qualname__
    return "", ""


def _why(refused: Exception, kind: str, method: str) -> str:
    lock = private.lock_made_for_fork(refused)
    if lock is not None:
        maker = _MAKERS.get(kind, kind)
        if not hasattr(multiprocessing.context.BaseContext, maker):  # the user's own object, which has the lock inside
            maker = lock
        return (
            f"multiprocessing made it, or a lock in it, for children of fork. Make it with "
            f"get_context({method!r}).{maker}(), or with procflow.{maker}() if {method!r} is the default method. "
            f"(In multiprocessing's words: {refused})"
        )
    why = "".join(traceback.format_exception_only(refused))  # also where the exception's own __str__ fails
    hint = " Does it hold a thread's lock, a file or a generator? Make that in the child." * isinstance(
        refused, TypeError
    )
    return why.strip() + "." + hint
