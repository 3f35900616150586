"""Attempts: what runs in a worker for a call that may begin again after it failed.

Which failure counts is decided where it is raised, as its type may not exist anywhere else; how often, by the pool.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Again", "ExitAgain", "Retried"]


class Again(BaseException):
    """Carries the exception of a call that may begin again."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


class ExitAgain(SystemExit):
    """sys.exit() in a call that may begin again when its worker has ended."""


class Retried:
    """A function that may be called again after it raised one of `retry_on`. How often is the pool's business.

    Attributes:
        attempt: Which one this is, of the next call.
    """

    __slots__ = ("_function", "_retries", "_retry_on", "attempt")

    def __init__(
        self, function: Callable[..., object], retries: int, retry_on: tuple[type[BaseException], ...]
    ) -> None:
        self._function, self._retries, self._retry_on = function, retries, retry_on
        self.attempt = 1

    def __call__(self, *args: object, **kwargs: object) -> object:
        attempt, self.attempt = self.attempt, 1  # of a chunk that begins again only the first item was there before
        try:
            return self._function(*args, **kwargs)
        except SystemExit as error:
            from procflow.errors import WorkerDied

            if issubclass(WorkerDied, self._retry_on):
                raise ExitAgain(error.code) from None
            raise
        except self._retry_on as error:
            if attempt > self._retries:
                _note(error, f"procflow: that was attempt {attempt} of {self._retries + 1}")
            raise Again(error) from None

    def __repr__(self) -> str:
        return repr(self._function)

    def __reduce__(self) -> tuple[object, ...]:
        return Retried, (self._function, self._retries, self._retry_on)


def _note(error: BaseException, text: str) -> None:
    try:
        error.add_note(text)
    except Exception:  # noqa: BLE001 - a class that refuses attributes: the note is a courtesy
        pass
