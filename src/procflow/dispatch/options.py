"""Options: what the calls of a pool, or of a view of it, carry beside their function and arguments."""

from __future__ import annotations

from procflow.errors import TaskTimeout, WorkerDied
from procflow.scheduling.scheduler import DIED, OVERDUE, Limits
from procflow.worker.attempts import Retried

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Options", "as_number"]


class Options:
    """Checked once, and never changed. Equal ones share a job of separate calls.

    Attributes:
        timeout: Seconds that a task may run; 0 for no limit.
        retries: How often a task begins again after it failed.
        retry_on: For which exceptions.
        backoff: Seconds before the second attempt; twice as long before each further one.
        buffersize: As in `Pool.imap`, for streams that are given none.
        progress: As in `Pool.map`, for calls that are given none.
    """

    __slots__ = ("backoff", "buffersize", "key", "limits", "progress", "retries", "retry_on", "timeout")

    def __init__(
        self,
        timeout: float | None = None,
        retries: int = 0,
        retry_on: type[BaseException] | tuple[type[BaseException], ...] = Exception,
        backoff: float = 0.0,
        buffersize: int | None = None,
        progress: Any = None,
    ) -> None:
        if timeout is not None and not as_number(timeout) > 0:
            raise ValueError(f"timeout must be a positive number of seconds, or None for no limit, not {timeout!r}")
        if not _whole(retries) >= 0:
            raise ValueError(f"retries must be an int of at least 0, not {retries!r}")
        if not as_number(backoff) >= 0:
            raise ValueError(f"backoff must be a number of seconds, at least 0, not {backoff!r}")
        if buffersize is not None and not _whole(buffersize) >= 1:
            raise ValueError(f"buffersize must be an int of at least 1, or None, not {buffersize!r}")
        kinds = retry_on if isinstance(retry_on, tuple) else (retry_on,)
        for kind in kinds:
            if not _is_exception(kind):
                raise TypeError(f"retry_on must be an exception class, or a tuple of them, not {retry_on!r}")
        self.timeout, self.backoff = float(timeout or 0.0), float(backoff)
        self.retries, self.retry_on = retries, kinds
        self.buffersize, self.progress = buffersize, progress
        self.key = (self.timeout, retries, self.backoff, kinds)  # what separate calls of one job have in common
        outlives = [why for why, kind in ((DIED, WorkerDied), (OVERDUE, TaskTimeout)) if issubclass(kind, kinds)]
        self.limits = Limits(self.timeout, retries, self.backoff, frozenset(outlives))

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return what runs in the worker."""
        return Retried(function, self.retries, self.retry_on) if self.retries else function


def _is_exception(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)


def _whole(value: object) -> float:
    """Return it if it is an int, else NaN, which compares with nothing."""
    return value if isinstance(value, int) else float("nan")


def as_number(value: object) -> float:
    """Return it, or NaN, which compares with nothing."""
    return value if isinstance(value, (int, float)) else float("nan")
