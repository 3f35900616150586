"""The errors that `except BrokenProcessPool` catches: what PoolExecutor's futures fail with when workers die.

They are a module of their own because `concurrent.futures.process`, where BrokenProcessPool lives, takes 26 ms to
import. It is imported when a worker has died, or by whoever writes that `except`.
"""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool

from procflow import errors

__all__ = ["InitializerError", "WorkerDied", "as_broken"]


class WorkerDied(errors.WorkerDied, BrokenProcessPool):
    """A `procflow.WorkerDied` that is a BrokenProcessPool, too. Only this future has failed: the executor goes on."""


class InitializerError(errors.InitializerError, BrokenProcessPool):
    """A `procflow.InitializerError` that is a BrokenProcessPool, too."""


def as_broken(error: errors.WorkerDied | errors.InitializerError) -> BaseException:
    """Return the same error, which `except BrokenProcessPool` catches."""
    made = (WorkerDied if isinstance(error, errors.WorkerDied) else InitializerError)(*error.args)
    made.__cause__ = error.__cause__
    return made
