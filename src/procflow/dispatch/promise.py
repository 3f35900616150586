"""Promise: the dispatcher's side of a Future.

    PENDING -> DONE     once. The outcome stays as it came until somebody asks: unpickling is the asker's.

P1  `raw` or `outcome` is set before `is_done`, and `is_done` before `waiters` are woken.
"""

from __future__ import annotations

from procflow.dispatch.outcome import Failure, decode
from procflow.errors import CancelledError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from procflow.dispatch.dispatcher import Dispatcher
    from procflow.dispatch.jobs import CallsJob, MapJob
    from procflow.dispatch.lead import Waking

__all__ = ["Promise"]


class Promise:
    """See the module."""

    __slots__ = (
        "callback",
        "dispatcher",
        "done_callbacks",
        "error_callback",
        "index",
        "is_done",
        "job",
        "outcome",
        "raw",
        "waiters",
    )

    def __init__(self, dispatcher: Dispatcher, job: CallsJob | MapJob, index: int) -> None:
        self.dispatcher = dispatcher
        self.job = job
        self.index = index  # of the item in its job; -1 for a map, which is all of its job
        self.is_done = False
        self.raw: tuple[int, object] | None = None  # kind, data: not decoded yet
        self.outcome: list[Any] | Failure | None = None
        self.waiters: list[Waking] | None = None
        self.done_callbacks: list[Callable[[], object]] | None = None
        self.callback: Callable[[Any], object] | None = None
        self.error_callback: Callable[[BaseException], object] | None = None

    @property
    def has_outcome(self) -> bool:
        """Whether it is decided, though perhaps not done yet: its callbacks come in between."""
        return self.is_done or self.outcome is not None or self.raw is not None

    @property
    def was_cancelled(self) -> bool:
        """Whether that is its outcome."""
        return isinstance(self.outcome, Failure) and isinstance(self.outcome.error, CancelledError)

    def decoded(self) -> list[Any] | Failure:
        """The outcome, decoded by the first who asks; of two who ask at once both may, and one result is kept."""
        outcome = self.outcome
        while outcome is None:
            raw = self.raw
            if raw is not None:
                self.outcome = self.decode(raw)
                self.raw = None
            outcome = self.outcome  # if `raw` was None, another thread has set this before
        return outcome

    def decode(self, raw: tuple[int, object]) -> list[Any] | Failure:
        """Turn what came into what `decoded` returns."""
        return decode(*raw)

    def digest(self) -> None:
        """Called by the thread that waits for this, whenever something came in."""
