"""What a task can learn of itself: `current_task()`.

Nothing is made for a task that does not ask. Who runs tasks leaves a function here that tells the place of the item
that runs: a worker for its process; for its thread, while it runs tasks there, the serial engine or a cluster's worker.
"""

from __future__ import annotations

import os
from _thread import _local  # pyright: ignore[reportPrivateUsage] # threading.local, without the import

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    # Index in the call, attempt, slot of the worker; and what the seed is made of: the pool's seed, the number of the
    # job and the place in it.
    Place = tuple[int, int, int, int, int, int]
    Teller = Callable[[], Place | None]

__all__ = ["TaskInfo", "current_task", "present_teller", "seed_of", "tell_in_process", "tell_in_thread"]

SEED_BITS = 63


class TaskInfo:
    """A task as it sees itself. It does not change, two of the same task are equal, and it can be sent.

    Args:
        index: Where its item is in the input of the call, from 0 on; 0 if the call is a single one, as by `submit`.
        attempt: 1, or more if it failed before and `options(retries=)` let it begin again.
        worker: The slot of its worker: 0 to the number of workers - 1. A worker that replaces another has the slot of
            that one; it may come up while the other is still leaving. 0 in the serial engine. On a cluster, where any
            process may run what was meant for a slot, two tasks that run at once may have the same one.
        seed: For random numbers, 0 to 2**63 - 1: another one for each task, and the same each time that the same calls
            are made of a pool with the same `seed`. It does not depend on how many workers there are, on the size of
            chunks, the start method, the engine or the attempt.
    """

    __slots__ = ("_facts",)
    __match_args__ = ("index", "attempt", "worker", "seed")

    def __init__(self, index: int, attempt: int, worker: int, seed: int) -> None:
        self._facts = index, attempt, worker, seed

    @property
    def index(self) -> int:
        """Where its item is in the input of its call, from 0 on."""
        return self._facts[0]

    @property
    def attempt(self) -> int:
        """Which attempt it is, from 1 on."""
        return self._facts[1]

    @property
    def worker(self) -> int:
        """The slot of the worker, from 0 on."""
        return self._facts[2]

    @property
    def seed(self) -> int:
        """The task's own seed for random numbers."""
        return self._facts[3]

    def __eq__(self, other: object) -> bool:
        return self._facts == other._facts if isinstance(other, TaskInfo) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._facts)

    def __reduce__(self) -> tuple[type[TaskInfo], tuple[int, int, int, int]]:
        return TaskInfo, self._facts

    def __repr__(self) -> str:
        index, attempt, worker, seed = self._facts
        return f"TaskInfo({index=}, {attempt=}, {worker=}, {seed=})"


_in_process: Teller | None = None
_of_thread = _local()  # `teller`: asked first


def current_task() -> TaskInfo:
    """Tell the task that calls this which one it is.

    >>> from random import Random
    >>> from procflow import Pool, current_task
    >>> def throw(sides):
    ...     return current_task().index, Random(current_task().seed).randint(1, sides)
    >>> with Pool(2, seed=1) as pool:
    ...     pool.map(throw, [6, 6, 100])
    [(0, 6), (1, 1), (2, 78)]

    A thread that a task has started in its worker learns which task the worker runs at that moment. (In the serial
    engine and on clusters, where several threads may each run a task, a thread has none but its own.)

    Raises:
        NoCurrentTask: This is not called from a task of a pool: an initializer is none, nor is a process that a task
            has started.
    """
    place = present_teller()()
    if place is None:
        from procflow.errors import NoCurrentTask

        raise NoCurrentTask
    index, attempt, worker, *origin = place
    return TaskInfo(index, attempt, worker, seed_of(*origin))


def seed_of(pool_seed: int, job: int, place: int) -> int:
    """Return the seed of a task: the first 63 bits of the BLAKE2b hash of the three numbers, in decimal, as "1,2,3".

    Args:
        pool_seed: The pool's.
        job: The number of the call among all of the pool. All single calls with equal options are one.
        place: That of the item in this call; for a single one, how many such there were before.
    """
    try:
        from _blake2 import blake2b  # a hundredth of the time that hashlib takes, which loads OpenSSL
    except ImportError:
        from hashlib import blake2b
    digest = blake2b(b"%d,%d,%d" % (pool_seed, job, place), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - SEED_BITS)


def present_teller() -> Teller:
    """Return what tells the present place; it is not the same in all threads."""
    found: Teller | None = getattr(_of_thread, "teller", None) or _in_process
    return found or _nowhere


def _nowhere() -> None:
    return None


def tell_in_process(teller: Teller) -> None:
    """From now on this is asked in this process; it returns None between two tasks."""
    global _in_process
    _in_process = teller


def tell_in_thread(teller: Teller | None) -> Teller | None:
    """From now on this is asked first in this thread; return what was so far."""
    before: Teller | None = getattr(_of_thread, "teller", None)
    _of_thread.teller = teller
    return before


def _forget() -> None:
    global _in_process, _of_thread
    _in_process, _of_thread = None, _local()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)  # a process that a task has started is not that task
