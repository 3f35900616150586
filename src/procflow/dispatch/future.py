"""Future: what a user holds of a call, for `submit`, `apply_async`, `map_async` and `starmap_async` alike.

F1  `callback` and `error_callback` have returned before the future is done, as in multiprocessing; what
    `add_done_callback` adds is called after it.
"""

from __future__ import annotations

from procflow.dispatch.outcome import Failure
from procflow.dispatch.promise import Promise
from procflow.errors import CancelledError, TimeoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Generic, TypeVar

    T = TypeVar("T")
    T_co = TypeVar("T_co", covariant=True)
else:
    from procflow.generic import Generic

    T_co = None


__all__ = ["Future"]


class Future(Promise, Generic[T_co]):
    """The result of one call, or of one map.

    It has the methods of `concurrent.futures.Future` and those of `multiprocessing.pool.AsyncResult`, and it can be
    awaited; but it is a class of procflow's own, an instance of neither, which `concurrent.futures.wait` and
    `as_completed` don't take. A thread that waits for a result does the pool's input and output meanwhile.
    """

    __slots__ = ("__weakref__",)

    # -- asking -------------------------------------------------------------------------------------------------------

    def result(self, timeout: float | None = None) -> T_co:
        """Return the value, waiting for it at most `timeout` seconds.

        Raises:
            TimeoutError: It is not there in time; the task goes on.
            CancelledError: It was cancelled before it started.
            WorkerDied: The worker died while it held the task; `started` tells whether it may have run.
            Exception: What the task raised, with the worker's traceback as its cause.
        """
        outcome = self._wait_outcome(timeout)
        if isinstance(outcome, Failure):
            try:
                raise outcome.error
            finally:
                del outcome  # no reference cycle through the traceback
        return outcome[0]  # type: ignore[return-value]

    get = result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the task raised, None if it returned; waiting as `result`."""
        outcome = self._wait_outcome(timeout)
        if isinstance(outcome, Failure):
            if isinstance(outcome.error, CancelledError):
                raise outcome.error
            return outcome.error
        return None

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the result is there, at most `timeout` seconds."""
        self.dispatcher.wait(self, timeout)

    def done(self) -> bool:
        """Whether the result is there: a value, an exception, or a cancellation."""
        return self.is_done

    ready = done

    def successful(self) -> bool:
        """Whether the task returned a value.

        Raises:
            ValueError: The result is not there yet.
        """
        if not self.is_done:
            raise ValueError(f"{self!r} is not ready: call wait() or get() first")
        return not isinstance(self.decoded(), Failure)

    def running(self) -> bool:
        """Whether a worker holds the task."""
        return not self.is_done and self.dispatcher.cancelling.is_held(self.job, self.index)

    def cancelled(self) -> bool:
        """Whether `cancel` took it back before it started, or `kill` ended it."""
        return self.is_done and self.was_cancelled

    # -- acting -------------------------------------------------------------------------------------------------------

    def cancel(self) -> bool:
        """Take the task back if no worker has begun it; return whether it is cancelled now."""
        if self.is_done:
            return self.cancelled()
        return self.dispatcher.cancelling.cancel(self, self.job, self.index)

    def kill(self) -> bool:
        """Cancel the task, also if it runs: then its worker is ended, with what that has started.

        Returns:
            Whether the task is cancelled now; False if it had come to its end before. What ran raises `TaskKilled`.

        Raises:
            ValueError: It runs on an engine that can't end it.
        """
        if self.is_done:
            return self.cancelled()
        return self.dispatcher.cancelling.kill(self, self.job, self.index)

    def add_done_callback(self, fn: Callable[[Future[T_co]], object]) -> None:
        """Call `fn(self)` when the result is there, at once if it is, in the thread that serves the pool then."""
        self.dispatcher.add_callback(self, lambda: fn(self))

    def __await__(self) -> Generator[object, None, T_co]:
        """Wait in an asyncio coroutine, without blocking its loop."""
        while not self.is_done:
            yield from self.dispatcher.sleep(self).__await__()
        return self.result(0)

    def __repr__(self) -> str:
        state = "pending"
        if self.is_done:
            outcome = self.outcome
            state = (
                "done" if outcome is None or isinstance(outcome, list) else f"failed: {type(outcome.error).__name__}"
            )
        return f"<Future {state}>"

    def _wait_outcome(self, timeout: float | None) -> list[object] | Failure:
        if not self.is_done and not self.dispatcher.wait(self, timeout):
            raise TimeoutError(f"no result within {timeout} s; the task goes on, so you can wait again or cancel() it")
        return self.decoded()
