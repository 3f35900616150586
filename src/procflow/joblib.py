"""procflow as a backend of joblib, and so of scikit-learn and all else that runs on joblib.

    from joblib import parallel_config
    import procflow.joblib

    procflow.joblib.register()
    with parallel_config("procflow", n_jobs=4):
        ...

    configured -> terminated         a call of Parallel takes an executor, and gives it back
    configured -> aborted            what runs is killed, the executor is thrown away; a new one if the call asks for it

B1  An executor belongs to one call of Parallel at a time, so that aborting one call touches no other.
B2  A big array among the arguments is written to shared memory once a call (`shared_arrays.py`), not sent with each
    task.
B3  The executor that was given back last is kept for the next call with the same settings: its workers are warm.
"""

from __future__ import annotations

import copy
import os
import threading
from concurrent.futures import Future

from procflow.cpu import cpu_count
from procflow.executor import PoolExecutor
from procflow.shared_arrays import Lent, SharedArrays

try:
    from joblib.parallel import (
        AutoBatchingMixin,
        FallbackToBackend,
        ParallelBackendBase,
        SequentialBackend,
        register_parallel_backend,
    )
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "procflow.joblib needs joblib: pip install 'procflow[joblib]'", name="joblib"
    ) from missing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, NamedTuple

    from joblib.parallel import Parallel

    class Settings(NamedTuple):
        """What two calls must have in common to use the same workers."""

        n_jobs: int
        start_method: str | None
        environment: tuple[tuple[str, str], ...]
        pid: int

else:
    from collections import namedtuple

    Settings = namedtuple("Settings", "n_jobs start_method environment pid")

__all__ = ["ProcflowBackend", "register", "shutdown"]


def register(*, make_default: bool = False) -> None:
    """Tell joblib of the backend "procflow". `make_default` makes it the one that `Parallel` takes if none is named."""
    register_parallel_backend("procflow", ProcflowBackend, make_default=make_default)


def shutdown() -> None:
    """End the workers that are kept for the next call. Without this they end with the interpreter."""
    _shelf.put(None)


class _Shelf:
    """Where the last executor waits for the next call; B3. One place, so that idle workers do not pile up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: tuple[Settings, PoolExecutor] | None = None

    def take(self, settings: Settings) -> PoolExecutor | None:
        """Return the executor if it has these settings; else it stays, or goes."""
        with self._lock:
            kept, self._kept = self._kept, None
        if kept is None or kept[0] == settings:
            return kept and kept[1]
        self._end(kept)
        return None

    def put(self, kept: tuple[Settings, PoolExecutor] | None) -> None:
        """Keep this one instead of the one that is kept."""
        with self._lock:
            kept, self._kept = self._kept, kept
        self._end(kept)

    @staticmethod
    def _end(kept: tuple[Settings, PoolExecutor] | None) -> None:
        if kept is not None and kept[0].pid == os.getpid():
            kept[1].shutdown()


_shelf = _Shelf()


class ProcflowBackend(AutoBatchingMixin, ParallelBackendBase):
    """What joblib calls. Its options: `parallel_config("procflow", start_method=, initializer=, initargs=)`."""

    supports_retrieve_callback = True  # and with it, timeouts and return_as="generator"
    supports_inner_max_num_threads = True

    _executor: PoolExecutor | None = None
    _arrays: SharedArrays | None = None  # None: the caller wants none to be shared
    _settings: Settings | None = None  # None: the workers are not for another call

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many workers `n_jobs` means; -1 is one for each CPU that this process may really use."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        return n_jobs if n_jobs > 0 else max(cpu_count() + 1 + n_jobs, 1)

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Parallel | None = None,
        **backend_kwargs: Any,
    ) -> int:
        """Take the workers for a call, or leave it to the calling thread if it is to be one at a time."""
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        assert parallel is not None
        self.parallel = parallel
        options = {**self.backend_kwargs, **backend_kwargs}
        start_method: str | None = options.get("start_method")
        settings = Settings(n_jobs, start_method, tuple(sorted(self._environment(n_jobs).items())), os.getpid())
        least: int | None = options.get("max_nbytes", 1_000_000)
        self._arrays = None if least is None else SharedArrays(least)
        initializer = options.get("initializer")
        if initializer is not None:
            self._settings = None
            self._executor = _open(settings, initializer, options.get("initargs", ()))
        else:
            self._settings = settings
            self._executor = _shelf.take(settings) or _open(settings)
        return n_jobs

    def _environment(self, n_jobs: int) -> dict[str, str]:
        """Return what keeps the workers' own thread pools from taking more CPUs than there are."""
        threads = self.inner_max_num_threads
        share = str(max(cpu_count() // n_jobs, 1))
        return {
            name: os.environ.get(name, share) if threads is None else str(threads) for name in self.MAX_NUM_THREADS_VARS
        }

    def submit(
        self, func: Callable[[], list[Any]], callback: Callable[[Future[list[Any]]], object] | None = None
    ) -> Future[list[Any]]:
        """Begin a batch; `callback` gets the future when it is done."""
        assert self._executor is not None
        if self._arrays is not None:
            func = _lending(func, self._arrays)
        future = self._executor.submit(run_batch, func)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    apply_async = submit

    def retrieve_result_callback(self, out: Future[list[Any]]) -> list[Any]:
        """Return the results of a batch, or raise what it raised."""
        return out.result()

    def stop_call(self) -> None:
        """A call is over; there may be another with the same workers."""
        if self._arrays is not None:
            self._arrays.close()

    def terminate(self) -> None:
        """Give the workers back."""
        executor, self._executor = self._executor, None
        self.stop_call()
        if executor is not None:
            if self._settings is None:
                executor.shutdown()
            else:
                _shelf.put((self._settings, executor))
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Kill what runs, cancel what does not; with `ensure_ready`, take other workers for the next call."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.kill_workers()
        self.stop_call()
        if ensure_ready:
            kwargs = self.parallel._backend_kwargs  # pyright: ignore[reportPrivateUsage] # as joblib's own backends do
            self.configure(self.parallel.n_jobs, self.parallel, **kwargs)


def run_batch(batch: Callable[[], list[Any]]) -> list[Any]:
    """In a worker: run a batch; a Parallel in it may ask for "procflow" by name."""
    register()
    return batch()


def _lending(batch: Any, arrays: SharedArrays) -> Any:
    """Return the batch with big arrays among its calls' arguments replaced by what stands for them on the way."""
    seen: dict[int, object] = {}  # each is looked at once: they do not change before the batch is pickled

    def lend_all(args: tuple[object, ...], kwargs: dict[str, object]) -> tuple[tuple[object, ...], dict[str, object]]:
        own: dict[int, object] = {}  # of this call: the batch is one pickle, in which the calls would share an array

        def lend(obj: object) -> object:
            if id(obj) not in seen:
                seen[id(obj)] = arrays.lend(obj)
            found = seen[id(obj)]
            return own.setdefault(id(obj), found.another()) if isinstance(found, Lent) else found

        return tuple(map(lend, args)), {name: lend(value) for name, value in kwargs.items()}

    lent = copy.copy(batch)
    lent.items = [(func, *lend_all(args, kwargs)) for func, args, kwargs in batch.items]
    return lent


def _open(
    settings: Settings, initializer: Callable[..., object] | None = None, initargs: Iterable[Any] = ()
) -> PoolExecutor:
    from procflow.context import get_context

    context = get_context(settings.start_method)
    return PoolExecutor(settings.n_jobs, context, initializer, initargs, env=dict(settings.environment))
