"""The pool's lock, and what may come between two steps of the thread that holds it: Ctrl-C, or any signal handler.

G1  `with guard:` is all C: no signal handler runs between the taking and the block, nor between the block and the
    release. So a lock is never left locked; an `__enter__` written in Python would be interrupted inside itself.
G2  It is re-entrant, so that code which interrupts its holder, in the same thread, can find out (`held_here`) instead
    of waiting for itself.
G3  No user code runs in the pool's steps, so an exception that leaves one of them is a signal handler's: what was
    changed there may be torn, and the pool is terminated rather than trusted (`step`).
"""

from __future__ import annotations

from functools import wraps

from procflow.errors import ProcflowError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Concatenate, ParamSpec, Protocol, TypeVar

    class RLock:
        """What the stubs call final, and is not."""

        def __enter__(self) -> bool: ...

        def __exit__(self, *_: object) -> None: ...

        def _is_owned(self) -> bool: ...

    class Tearable(Protocol):
        """What consists of steps."""

        def tear(self) -> None: ...

    P = ParamSpec("P")
    T = TypeVar("T")
    S = TypeVar("S", bound=Tearable)
else:
    from _thread import RLock

__all__ = ["Guard", "step"]


class Guard(RLock):
    """See the module."""

    __slots__ = ("torn",)

    torn: bool  # a step was interrupted

    held_here = RLock._is_owned
    """Whether the calling thread holds it: it has interrupted itself."""


def step(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Mark a method that is a step of the pool: G3."""

    @wraps(method)
    def stepped(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(self, *args, **kwargs)
        except ProcflowError:
            raise
        except BaseException:
            self.tear()
            raise

    return stepped
