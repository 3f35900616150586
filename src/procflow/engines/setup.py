"""Setup: what the workers of a pool are made with. Checked once, and never changed; the engine makes workers of it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from procflow.cpu import sharers
from procflow.start.surroundings import checked_env, checked_preload
from procflow.worker import threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from contextlib import AbstractContextManager
    from typing import TypedDict

    Env = Mapping[str, str] | Sequence[Mapping[str, str]] | Callable[[int], Mapping[str, str]]
    Affinity = bool | Sequence[int | Collection[int]]
    MakeContext = Callable[[], AbstractContextManager[object, bool | None]]

    class WorkerOptions(TypedDict, total=False):
        """Keywords of all that opens a pool; `Pool` says what they mean."""

        env: Env | None
        threads_per_worker: int | None
        cpu_affinity: Affinity
        worker_context: MakeContext | None
        preload: Sequence[str]
        seed: int | None


__all__ = ["Setup", "as_positive"]

SEED_NBYTES = 16  # of a pool's own seed


class Setup:
    """See the module, and `Pool` for the arguments.

    Attributes:
        initializer: Called in each worker with `initargs`.
        max_memory: Bytes that a worker may keep between two tasks; 0 for no limit.
        threads: That native libraries of a worker may use; 0 for no limit.
        context: Makes the context manager that a worker is entered in.
        preload: Modules that the fork server imports.
        seed: The pool's.
        sharers: How many processes keep the CPUs busy: the workers, times those that this process is one of.
    """

    __slots__ = (
        "_cpus",
        "_env",
        "context",
        "initargs",
        "initializer",
        "max_memory",
        "preload",
        "seed",
        "sharers",
        "threads",
    )

    def __init__(  # noqa: PLR0913 - this is where they become one
        self,
        processes: int = 1,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[object, ...] = (),
        max_memory: int | None = None,
        *,
        env: Env | None = None,
        threads_per_worker: int | None = None,
        cpu_affinity: Affinity = False,
        worker_context: MakeContext | None = None,
        preload: Sequence[str] = (),
        seed: int | None = None,
    ) -> None:
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be callable, not {type(initializer).__name__}")
        self.initializer, self.initargs = initializer, initargs
        self.max_memory = as_positive("max_memory_per_worker", max_memory)
        self.threads = as_positive("threads_per_worker", threads_per_worker)
        self.context = _checked_context(worker_context)
        self.preload = checked_preload(preload)
        self.seed = _checked_seed(seed)
        self.sharers = processes * sharers()
        # By slot; what all have in common is there once.
        self._env = () if env is None else _env_of_slots(env, processes)
        self._cpus = _cpus_of_slots(cpu_affinity, processes)

    def env(self, slot: int) -> dict[str, str]:
        """Return the variables that the worker in this slot has beside those of this process."""
        own = self._env[slot % len(self._env)] if self._env else {}
        return {**threads.variables(self.threads), **own} if self.threads else own

    def cpus(self, slot: int) -> list[int]:
        """Return the processors that the worker in this slot is bound to; none: it is not bound."""
        return self._cpus[slot] if self._cpus else []

    def check_for(self, method: str) -> None:
        """Refuse what workers of this start method could not do on this system."""
        if self.max_memory:
            from procflow.worker.memory import check_measurable

            check_measurable()
        if self.threads:
            threads.check_limitable(forks=method == "fork", preloads=method == "forkserver" and bool(self.preload))


def as_positive(name: str, value: object) -> int:
    """Return it; 0 for None."""
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a positive int or None, not {value!r}")
    return value


def _checked_seed(seed: object) -> int:
    if seed is None:
        return int.from_bytes(os.urandom(SEED_NBYTES), "big")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise TypeError(f"seed must be an int or None, not {seed!r}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, not {seed}")
    return int(seed)


def _checked_context(make: MakeContext | None) -> MakeContext | None:
    if make is not None and (not _is_callable(make) or hasattr(type(make), "__enter__")):
        raise TypeError(
            "worker_context must be what makes a context manager in each worker, such as a class, a function under "
            f"@contextmanager, or functools.partial of one, not {make!r}"
        )
    return make


def _is_callable(given: object) -> bool:
    return callable(given)


def _env_of_slots(env: object, processes: int) -> tuple[dict[str, str], ...]:
    if callable(env):
        return tuple(checked_env(env(slot), f"env({slot})") for slot in range(processes))
    if isinstance(env, Sequence) and not isinstance(env, str):
        each: Sequence[object] = env  # pyright: ignore[reportUnknownVariableType]
        _check_length("env", len(each), processes)
        return tuple(checked_env(one, f"env[{slot}]") for slot, one in enumerate(each))
    return (checked_env(env),)


def _cpus_of_slots(affinity: object, processes: int) -> tuple[list[int], ...]:
    if affinity is None or affinity is False:
        return ()
    if not hasattr(os, "sched_setaffinity"):
        raise ValueError("cpu_affinity: this system can't bind a process to processors; leave it out")
    allowed = sorted(os.sched_getaffinity(0))
    if affinity is True:
        return tuple(_share(allowed, slot, processes) for slot in range(processes))
    if not isinstance(affinity, Sequence) or isinstance(affinity, str):
        raise TypeError(f"cpu_affinity must be True, or a list with the processors of each worker, not {affinity!r}")
    each: Sequence[object] = affinity  # pyright: ignore[reportUnknownVariableType]
    _check_length("cpu_affinity", len(each), processes)
    return tuple(_checked_cpus(one, slot, allowed) for slot, one in enumerate(each))


def _share(allowed: list[int], slot: int, processes: int) -> list[int]:
    """Neighbours, which often share a cache; with more workers than processors, one for several."""
    count = len(allowed)
    if processes >= count:
        return [allowed[slot % count]]
    return allowed[slot * count // processes : (slot + 1) * count // processes]


def _checked_cpus(cpus: object, slot: int, allowed: list[int]) -> list[int]:
    try:
        found: list[object] = [cpus] if isinstance(cpus, int) else list(cpus)  # type: ignore[call-overload]
    except TypeError:
        found = []
    numbers = [cpu for cpu in found if isinstance(cpu, int) and not isinstance(cpu, bool)]
    if not numbers or len(numbers) < len(found):
        raise TypeError(f"cpu_affinity[{slot}] must be the number of a processor, or several, not {cpus!r}")
    if not set(numbers) <= set(allowed):
        raise ValueError(
            f"cpu_affinity[{slot}] is {cpus!r}, but this process may use only {allowed}: os.sched_getaffinity(0)"
        )
    return sorted(set(numbers))


def _check_length(name: str, given: int, processes: int) -> None:
    if given != processes:
        raise ValueError(f"{name} must have an entry for each of the {processes} workers, not {given}")
