"""PoolExecutor: `concurrent.futures.ProcessPoolExecutor`, on a Pool.

    PENDING -> settled     once, by whoever sees first that the pool is done with it: the thread that waits in result(),
                           the one that runs the pool's callbacks, or the one that cancels

X1  Popping `_held` is the claim to settle a future, and one thread gets it.
X2  A future is settled although nobody waits for it on procflow's side: the pool's background thread does it then.
X3  A thread in result() or exception() settles its future itself: it waits for no callback of another.
X4  Work that was accepted is done: after shutdown(wait=False), when the executor is dropped, and at the interpreter's
    end.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import itertools
import weakref
from collections import deque
from time import monotonic

from procflow.dispatch.dispatcher import Dispatcher
from procflow.dispatch.lead import remaining
from procflow.dispatch.outcome import Failure
from procflow.errors import CancelledError, ExecutorClosed, InitializerError, PoolClosed, WorkerDied
from procflow.pool import Pool, read_whole
from procflow.wire.packets import MAP, STAR
from procflow.worker.chunk import run_chunk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from multiprocessing.context import BaseContext
    from typing import Any, ParamSpec, TypeVar, Unpack

    from procflow.dispatch.future import Future
    from procflow.dispatch.stream import ResultIterator
    from procflow.engines.setup import WorkerOptions

    P = ParamSpec("P")
    R = TypeVar("R")

__all__ = ["PoolExecutor"]

_draining: weakref.WeakSet[Dispatcher] = weakref.WeakSet()  # X4, at the interpreter's end


class ExecutorFuture(concurrent.futures.Future["R"]):
    """A future of the standard library. Its state is that of the pool's future until it is settled."""

    def __init__(self, pending: set[ExecutorFuture[Any]]) -> None:
        super().__init__()
        self._pending = pending
        self._held: list[Future[R]] = []  # the pool's future, until this one is settled

    def attach(self, inner: Future[R]) -> None:
        """Stand for this future of the pool, which was not submitted yet."""
        self._held.append(inner)
        self._pending.add(self)
        inner.done_callbacks = [self._settle]

    def result(self, timeout: float | None = None) -> R:
        """Return the value, as in `concurrent.futures`; the thread that waits serves the pool meanwhile."""
        return super().result(self._wait(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the exception, None if there is none; waiting as `result`."""
        return super().exception(self._wait(timeout))

    def cancel(self) -> bool:
        """Take the task back if no worker has begun it; return whether it is cancelled now."""
        inner = self._inner()
        if inner is None:
            return self.cancelled()
        if not inner.cancel():
            return False
        self._settle()
        try:
            super().exception()  # another thread may be at it
        except concurrent.futures.CancelledError:
            return True
        return False

    def running(self) -> bool:
        """Whether a worker holds the task."""
        inner = self._inner()
        return inner is not None and inner.running()

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[R]], object]) -> None:
        """Call `fn(self)` when it is done."""
        super().add_done_callback(fn)
        inner = self._inner()
        if inner is not None:  # probably nobody is going to wait for it
            inner.dispatcher.hurry()

    def _inner(self) -> Future[R] | None:
        try:
            return self._held[0]
        except IndexError:
            return None

    def _wait(self, timeout: float | None) -> float | None:
        """Wait, leading the pool; return how long the rest of the wait may take."""
        inner = self._inner()
        if inner is None:
            return timeout
        deadline = None if timeout is None else monotonic() + timeout
        inner.wait(timeout)
        if inner.is_done:
            self._settle()
        return remaining(deadline)

    def _settle(self) -> None:
        inner = self._inner()
        if inner is None:
            return
        outcome = inner.decoded()  # Ctrl-C in here leaves the claim to the next
        try:
            self._held.pop()
        except IndexError:
            return
        self._pending.discard(self)
        if not isinstance(outcome, Failure):
            self.set_result(outcome[0])
            return
        error = outcome.error
        if isinstance(error, CancelledError):
            super().cancel()
            self.set_running_or_notify_cancel()
            return
        if isinstance(error, (WorkerDied, InitializerError)):
            from procflow.broken import as_broken

            error = as_broken(error)
        self.set_exception(error)


class _Workers(Pool):
    """A Pool that does what it has accepted, also when it is dropped; and the calls that an executor needs."""

    def begin(
        self, future: ExecutorFuture[R], fn: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Submit a call whose result is to be this future's."""
        core = self._core
        inner = core.new_call()
        future.attach(inner)
        core.submit(fn, args, kwargs, inner)

    def begin_map(
        self, fn: Callable[..., R], iterables: Sequence[Iterable[Any]], chunksize: int
    ) -> tuple[ResultIterator[R], int]:
        """Read the input, have all of it worked at; return the results, and how many there will be."""
        single = len(iterables) == 1
        inputs: Sequence[Any] = read_whole(iterables[0]) if single else list(zip(*iterables, strict=False))
        size = max(len(inputs), chunksize)
        grain = None if chunksize == 1 else chunksize
        return self._stream(fn, MAP if single else STAR, inputs, grain, size, ordered=True), len(inputs)

    @property
    def dispatcher(self) -> Dispatcher:
        """What has to be drained at the interpreter's end, when this pool may be long gone."""
        return self._core

    @staticmethod
    def _left_behind(core: Dispatcher) -> None:
        if not core.closed:
            core.close_later()


class PoolExecutor(concurrent.futures.Executor):
    """`concurrent.futures.ProcessPoolExecutor`, faster, and it never breaks.

    It is a `concurrent.futures.Executor` with futures of that module, so whatever takes an executor takes this one. A
    worker's death fails the one future whose task it held, with `WorkerDied`, which `except BrokenProcessPool` catches
    too; the other futures and the executor go on.

    >>> from procflow import PoolExecutor
    >>> with PoolExecutor(2) as executor:
    ...     executor.submit(pow, 2, 5).result()
    ...     list(executor.map(abs, [-1, -2]))
    32
    [1, 2]

    Args:
        max_workers: How many workers; by default as many as `Pool` has.
        mp_context: Where the start method comes from, see `get_context`; `multiprocessing`'s contexts are fine.
        initializer: Called in every worker, with `initargs`, before its first task.
        initargs: Its arguments.
        max_tasks_per_child: How many tasks a worker runs before a fresh one takes its place.
        **workers: `env`, `threads_per_worker`, `cpu_affinity`, `worker_context`, `preload` and `seed`, as in `Pool`.

    Raises:
        ValueError: `max_workers` or `max_tasks_per_child` is below 1, or the latter is given with the start method
            fork, which ProcessPoolExecutor refuses too.
        TypeError: `initializer` can't be called, or `max_tasks_per_child` is not an int.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        *,
        max_tasks_per_child: int | None = None,
        **workers: Unpack[WorkerOptions],
    ) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        mp_context = _context_for(mp_context, max_tasks_per_child)
        self._pool = _Workers(max_workers, initializer, initargs, max_tasks_per_child, mp_context, **workers)
        self._pending: set[ExecutorFuture[Any]] = set()
        self._streams: set[ResultIterator[Any]] = set()  # of maps: they go on though their iterator is dropped
        _draining.add(self._pool.dispatcher)

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> concurrent.futures.Future[R]:
        """Call `fn(*args, **kwargs)` in a worker, and return a `concurrent.futures.Future` of its result at once.

        Raises:
            ExecutorClosed: The executor was shut down. It is a RuntimeError.
        """
        future: ExecutorFuture[R] = ExecutorFuture(self._pending)
        try:
            self._pool.begin(future, fn, args, kwargs)
        except PoolClosed as refusal:
            self._pending.discard(future)
            raise self._refusal(refusal) from None
        return future

    def map(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[R]:
        """Call `fn` on the items of the iterables, as the builtin `map`, and return an iterator of the results.

        Args:
            fn: Called with one item of each iterable.
            *iterables: Read at once; with `buffersize`, as far ahead as that says.
            timeout: Seconds from now, for all of the results.
            chunksize: Items that travel, and fail, together. With 1 the pool chooses how many travel together from the
                time they take, and each fails alone.
            buffersize: How many chunks may be read whose results were not taken yet. The next is read when a result is
                asked for, in the thread that asks.

        Raises:
            TimeoutError: From `next`: `timeout` seconds after the call of map there are still results to come. What
                has not begun is cancelled.
            Exception: From `next`: what the task of that item raised. What has not begun is cancelled.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        deadline = None if timeout is None else monotonic() + timeout
        if buffersize is not None and iterables:
            return self._map_lazily(fn, zip(*iterables, strict=False), chunksize, buffersize, deadline)
        if not iterables:
            return iter(())
        self._streams.difference_update([stream for stream in self._streams if stream.ended])
        try:
            results, count = self._pool.begin_map(fn, iterables, chunksize)
        except PoolClosed as refusal:
            raise self._refusal(refusal) from None
        self._streams.add(results)
        return _take(results, count, deadline, self._streams)

    def _map_lazily(
        self,
        fn: Callable[..., R],
        items: Iterator[tuple[Any, ...]],
        chunksize: int,
        buffersize: int,
        deadline: float | None,
    ) -> Iterator[R]:
        """Begin the first `buffersize` chunks now, and one more for each whose results are asked for."""
        chunks = iter(lambda: list(itertools.islice(items, chunksize)), [])
        job, starts = self._pool.dispatcher.reserve_number(), itertools.count(0, chunksize)
        futures = deque(
            self.submit(run_chunk, fn, chunk, job, next(starts)) for chunk in itertools.islice(chunks, buffersize)
        )
        executor = weakref.ref(self)  # who drops the executor wants nothing more to be read

        def results() -> Iterator[R]:
            try:
                while futures:
                    alive = executor()
                    chunk = next(chunks, None) if alive is not None else None
                    if alive is not None and chunk is not None:
                        futures.append(alive.submit(run_chunk, fn, chunk, job, next(starts)))
                    del alive, chunk
                    values = futures.popleft().result(remaining(deadline))
                    values.reverse()
                    while values:
                        yield values.pop()
            finally:
                for future in futures:
                    future.cancel()

        return results()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more work; the workers end when everything accepted is done.

        Args:
            wait: Return when they have ended. Else return at once; the work goes on, and the interpreter's end waits
                for it.
            cancel_futures: Cancel what no worker has begun.
        """
        self._pool.close()
        if cancel_futures:
            for stream in list(self._streams):
                stream.close()
            for future in list(self._pending):
                future.cancel()
        if wait:
            self._pool.join()

    def kill_workers(self) -> None:
        """End the workers now, whatever they do, and accept no more work. What is not done fails with PoolClosed."""
        self._pool.terminate()
        self._pool.join()

    def _refusal(self, refusal: PoolClosed) -> ExecutorClosed:
        if self._pool.dispatcher.foreign:
            return ExecutorClosed(f"cannot schedule new futures: {refusal}")
        return ExecutorClosed("cannot schedule new futures after shutdown")

    def __repr__(self) -> str:
        return f"<PoolExecutor: {self._pool!r}>"


def _context_for(context: BaseContext | None, max_tasks_per_child: object) -> BaseContext:
    """Return the context; refuse what ProcessPoolExecutor refuses."""
    from procflow.context import get_context

    given = context is not None
    if context is None:
        context = get_context()
    if max_tasks_per_child is None:
        return context
    if not isinstance(max_tasks_per_child, int):
        raise TypeError("max_tasks_per_child must be an integer")
    if max_tasks_per_child <= 0:
        raise ValueError("max_tasks_per_child must be >= 1")
    if context.get_start_method() == "fork":
        if given:
            raise ValueError(
                "max_tasks_per_child is incompatible with the 'fork' multiprocessing start method;"
                " supply a different mp_context."
            )
        return get_context("spawn")
    return context


def _take(
    results: ResultIterator[R], count: int, deadline: float | None, streams: set[ResultIterator[Any]]
) -> Iterator[R]:
    """Yield the results; a reference to one that was given out is not kept."""
    taken = 0
    try:
        while taken < count:
            yield results.next(remaining(deadline))
            taken += 1
    except StopIteration:
        raise CancelledError("the executor was shut down with cancel_futures; the rest was not run") from None
    finally:
        streams.discard(results)
        results.close()


@atexit.register
def _drain() -> None:
    """Before the pools are terminated at the interpreter's end: see X4. Exit functions run in reverse order."""
    for dispatcher in list(_draining):
        dispatcher.close()
    for dispatcher in list(_draining):
        dispatcher.join()
