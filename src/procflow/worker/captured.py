"""What a task prints and warns of, beside what it returns: `captured(function)`."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Generic, ParamSpec, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")
    R_co = TypeVar("R_co", covariant=True)
else:
    from procflow.generic import Generic

    P = R = R_co = None

__all__ = ["Captured", "captured"]

NOTE_MOST = 10_000  # characters of what is printed that go with an exception: the last ones


class Captured(Generic[R_co]):
    """What one call has returned, printed and warned of. It does not change, and it can be sent.

    Attributes:
        value: What the function returned.
        stdout: What was printed, by way of `sys.stdout`, as text.
        stderr: The same of `sys.stderr`.
        warnings: Those that the filters let through, as "UserWarning: ..." each.
    """

    __slots__ = ("stderr", "stdout", "value", "warnings")
    __match_args__ = ("value", "stdout", "stderr", "warnings")

    def __init__(self, value: R_co, stdout: str, stderr: str, warnings: tuple[str, ...]) -> None:
        self.value, self.stdout, self.stderr, self.warnings = value, stdout, stderr, warnings

    def __reduce__(self) -> tuple[type[Captured[R_co]], tuple[R_co, str, str, tuple[str, ...]]]:
        return type(self), (self.value, self.stdout, self.stderr, self.warnings)

    def __eq__(self, other: object) -> bool:
        return self.__reduce__() == other.__reduce__() if isinstance(other, Captured) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.__reduce__()[1])

    def __repr__(self) -> str:
        parts = [f"{name}={getattr(self, name)!r}" for name in ("stdout", "stderr", "warnings") if getattr(self, name)]
        return f"Captured({', '.join([repr(self.value), *parts])})"


class _Capturing(Generic[P, R]):
    def __init__(self, function: Callable[P, R]) -> None:
        self._function = function

    def __repr__(self) -> str:
        return f"captured({self._function!r})"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Captured[R]:
        import io
        import warnings

        outer, out, err = (sys.stdout, sys.stderr), io.StringIO(), io.StringIO()
        with warnings.catch_warnings(record=True) as caught:
            sys.stdout, sys.stderr = out, err
            try:
                value = self._function(*args, **kwargs)
            except BaseException as error:
                printed = out.getvalue() + err.getvalue()
                if printed:
                    error.add_note(f"procflow: what it had printed before:\n{printed[-NOTE_MOST:]}")
                raise
            finally:
                sys.stdout, sys.stderr = outer
        told = tuple(f"{one.category.__name__}: {one.message}" for one in caught)
        return Captured(value, out.getvalue(), err.getvalue(), told)


def captured(function: Callable[P, R]) -> Callable[P, Captured[R]]:
    """Return a function that does the same and returns a `Captured`: the value, and what was printed and warned of.

    It is for any call of a pool, as each worker runs one task at a time; elsewhere two threads that run such functions
    at once would get each other's output. What C code and child processes write to the descriptors is not captured. If
    the function raises, the exception has what was printed before as a note.

    >>> from procflow import Pool, captured
    >>> def loud(number):
    ...     print("working on", number)
    ...     return number**2
    >>> with Pool(2) as pool:
    ...     results = pool.map(captured(loud), [2, 3])
    >>> results[1].value, results[1].stdout
    (9, 'working on 3\\n')
    """
    return _Capturing(function)
