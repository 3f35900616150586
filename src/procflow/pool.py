"""Pool: the methods of `multiprocessing.Pool`, and `submit`. Thin: it checks arguments and opens jobs."""

from __future__ import annotations

import atexit
import warnings
import weakref
from operator import index

from procflow.cpu import default_workers
from procflow.dispatch.dispatcher import DEFAULT, Dispatcher
from procflow.dispatch.future import Future
from procflow.dispatch.options import Options, as_number
from procflow.dispatch.stream import Feeder, ResultIterator, StreamJob, sequence_refill
from procflow.dropping import when_dropped
from procflow.engines.serial import SerialEngine
from procflow.engines.setup import Setup, as_positive
from procflow.errors import TimeoutError
from procflow.portable import asked_for
from procflow.start.main_module import stop_replay
from procflow.wire.packets import MAP, STAR

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from multiprocessing.context import BaseContext
    from types import TracebackType
    from typing import Any, Literal, ParamSpec, Self, TypeVar

    from procflow.dispatch.jobs import MapFuture
    from procflow.engines.base import Engine
    from procflow.engines.remote import RemoteEngine
    from procflow.engines.setup import Affinity, Env, MakeContext, WorkerOptions
    from procflow.observe.audience import Subscription
    from procflow.observe.events import Event
    from procflow.observe.progress import Progress
    from procflow.observe.recording import Run
    from procflow.observe.statistics import PoolStatistics
    from procflow.scheduling.scheduler import Job

    P = ParamSpec("P")
    T = TypeVar("T")
    R = TypeVar("R")

__all__ = ["Pool"]

START_TIMEOUT = 600.0  # seconds

_open: weakref.WeakSet[Dispatcher] = weakref.WeakSet()  # terminated at exit


class Pool:
    """A pool of worker processes that outlives the death of any of them.

    As `multiprocessing.Pool`, and beyond it: a task whose worker dies fails with `WorkerDied`, and everything else
    goes on; leaving the `with` block waits for accepted work, on an exception it ends it; `imap` reads its input only
    as fast as its results are taken; lambdas and closures can be sent.

    >>> from procflow import Pool
    >>> with Pool(2) as pool:
    ...     pool.map(abs, [-1, -2, 3])
    [1, 2, 3]

    Args:
        processes: How many workers; by default the CPUs that this process may really use, see `cpu_count`. In a worker
            of another pool, that worker's share of them. On a cluster how many tasks run at once at most; by default as
            many as it has places for.
        initializer: Called in every worker, with `initargs`, before its first task.
        initargs: Its arguments. Locks, queues and connections may be among them.
        maxtasksperchild: How many tasks a worker runs before a fresh one takes its place. A task is one item, or one
            chunk where a `chunksize` is given.
        context: Where the start method comes from, see `get_context`; by default procflow's default context.
        engine: "local": worker processes. "serial": no process, tasks run at once in the calling thread, with the
            caller's own objects; a debugger works there. Or a `FuturesEngine`, `DaskEngine` or `RayEngine` of
            `procflow.engines`: the workers of an executor or cluster.
        start_timeout: Seconds that a worker may take to become ready, its initializer included; None for no limit. Then
            it is ended, as one that has failed; after three in a row the pool's tasks fail with `InitializerError`,
            which says where the last one was.
        env: Variables that a worker has in its environment before it imports anything, beside those of this process:
            one mapping for all workers, a list with one for each, or what is called with 0, 1, ... and returns each.
        threads_per_worker: How many threads numerical libraries may use in a worker, by the variables that OpenMP and
            the BLAS libraries read; `env` comes before it. Libraries that are loaded before a worker is forked, under
            fork or by `preload`, are told by threadpoolctl, which is then needed.
        cpu_affinity: True: share the processors that this process may use out among the workers. Or a list with those
            of each worker: numbers, or lists of numbers.
        worker_context: Called in each worker after the initializer; the context manager that it returns is entered, and
            left when the worker ends in order: as the pool is closed, after `maxtasksperchild`, as it has kept too much
            memory, or by sys.exit(). Not when it is killed, by `terminate()`, a time limit, or a signal.
        preload: Modules that the fork server imports once for all workers, as in `Process`.
        seed: What the seeds of the tasks are made from, see `current_task`. By default another one for each pool; the
            attribute `seed` has it.
        record: A file, as "run.html" or "run.json": all that happens in the pool is recorded, as by `record()`, and
            saved there when `join()` returns, which leaving the `with` block calls.
        max_memory_per_worker: Bytes. A worker that has more memory for itself after a task makes room for a fresh one;
            no task fails of it. Memory that others share, as big arrays, does not count. An interpreter has 10 to 20
            million, and what it imports. Where there is no /proc/self/smaps_rollup, psutil is needed.

    Raises:
        ValueError: An argument is out of range, the engine is unknown, or can't do what is asked for: the serial one
            has no workers with an environment, threads and processors of their own, and those of a cluster are not the
            pool's.
        EngineError: The cluster can't be reached, or its workers have another version of Python or procflow.
        ModuleNotFoundError: `max_memory_per_worker` needs psutil on this system, or `threads_per_worker` threadpoolctl,
            which is not installed.
        TypeError: `initializer` or `worker_context` can't be called, or an argument is of the wrong type.
        PicklingError: `initializer`, one of `initargs`, or `worker_context` can't be sent to a worker.
    """

    def __init__(  # noqa: PLR0913 - what a worker is made with travels as one object from here on
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: BaseContext | None = None,
        *,
        engine: Literal["local", "serial"] | RemoteEngine = "local",
        env: Env | None = None,
        threads_per_worker: int | None = None,
        cpu_affinity: Affinity = False,
        worker_context: MakeContext | None = None,
        preload: Sequence[str] = (),
        seed: int | None = None,
        max_memory_per_worker: int | None = None,
        start_timeout: float | None = START_TIMEOUT,
        record: str | os.PathLike[str] | None = None,
    ) -> None:
        stop_replay()
        if processes is not None and index(processes) < 1:
            raise ValueError(f"processes must be at least 1, not {processes}")
        if record is not None:
            from procflow.observe.recording import check_kind

            check_kind(record)
        allowance = as_positive("maxtasksperchild", maxtasksperchild) or None
        if start_timeout is not None and not as_number(start_timeout) > 0:
            raise ValueError(f"start_timeout must be a positive number of seconds, or None, not {start_timeout!r}")
        options: WorkerOptions = {
            "env": env,
            "threads_per_worker": threads_per_worker,
            "cpu_affinity": cpu_affinity,
            "worker_context": worker_context,
            "preload": preload,
            "seed": seed,
        }
        chosen = _choose_engine(engine)
        if chosen is not None:
            _check_honoured(
                chosen,
                maxtasksperchild=maxtasksperchild,
                context=context,
                max_memory_per_worker=max_memory_per_worker,
                start_timeout=start_timeout not in (None, START_TIMEOUT),
                **options,
            )
        count = processes or default_workers()
        setup = Setup(count, initializer, tuple(initargs), max_memory_per_worker, **options)
        self._seed = setup.seed
        made: Engine = _make_local(context, count, setup) if chosen is None else chosen.open(setup, processes)
        if made.inline:
            count, allowance = 1, None
        elif chosen is not None:
            count, start_timeout = 0, None  # it tells how many there are
        self._options = DEFAULT
        self._viewed: Pool | None = None  # of what this is a view: it is ended when nobody holds it
        self._core = Dispatcher(made, count, allowance, start_timeout or 0.0)
        self._when_dropped = when_dropped(self, self._left_behind, self._core)
        _open.add(self._core)
        self._recorded = [] if record is None else [(self.record(), record)]  # views share it

    def options(
        self,
        *,
        timeout: float | None = None,
        retries: int = 0,
        retry_on: type[BaseException] | tuple[type[BaseException], ...] = Exception,
        backoff: float = 0.0,
        buffersize: int | None = None,
        progress: Progress = None,
    ) -> Pool:
        """Return a view of this pool whose calls carry these options. What is left out has its default.

        >>> from procflow import Pool
        >>> with Pool(2) as pool:
        ...     pool.options(timeout=10, retries=2).map(abs, [-1, -2, 3])
        [1, 2, 3]

        Args:
            timeout: Seconds that one task may run, from when a worker begins it. Then its worker is ended, with what it
                has started, whatever it does, and the task fails with `TaskTimeout`.
            retries: How often a task begins again after it failed, so it runs at most `retries + 1` times.
            retry_on: For which exceptions of the task: a class, or a tuple of classes, as for `except`. By default for
                all but those that end programs. `WorkerDied` and `TaskTimeout` are among them; `TaskTimeout` is a
                `TimeoutError`, and so an `OSError`, too.
            backoff: Seconds before the second attempt; before each further one twice as long.
            buffersize: As in `imap`, for streams that are given none.
            progress: As in `map`, for calls that are given none.

        Raises:
            ValueError: One of them is out of range, or the pool's engine can't do it.
            TypeError: `retry_on` is no exception class.
        """
        made = Options(timeout, retries, retry_on, backoff, buffersize, progress)
        _check_honoured(self._core.engine, timeout=timeout)
        view: Pool = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view._options = made
        view._viewed = self
        return view

    @property
    def seed(self) -> int:
        """What the seeds of its tasks are made from: a pool that is given it makes the same ones."""
        return self._seed

    # -- single calls -------------------------------------------------------------------------------------------------

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Call `fn(*args, **kwargs)` in a worker, and return a Future of its result at once.

        Raises:
            PoolClosed: The pool was closed or terminated.
        """
        return self._core.submit(fn, args, kwargs, None, self._options)

    def apply(self, func: Callable[..., R], args: Iterable[Any] = (), kwds: Mapping[str, Any] | None = None) -> R:
        """Call `func(*args, **kwds)` in a worker and return its result. `kwds` are its keyword arguments."""
        future: Future[R] = self._core.submit(func, tuple(args), dict(kwds or {}), None, self._options)
        return future.result()

    def apply_async(
        self,
        func: Callable[..., R],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
        callback: Callable[[R], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> Future[R]:
        """Like `apply`, but return a Future at once.

        `callback` gets the result, `error_callback` the exception, before the future is done. They run in a thread of
        this process, one at a time.
        """
        core = self._core
        future: Future[R] = core.new_call(self._options)
        future.callback, future.error_callback = callback, error_callback
        return core.submit(func, tuple(args), dict(kwds or {}), future, self._options)

    # -- maps ---------------------------------------------------------------------------------------------------------

    def map(
        self,
        func: Callable[[T], R],
        iterable: Iterable[T],
        chunksize: int | None = None,
        *,
        timeout: float | None = None,
        progress: Progress = None,
    ) -> list[R]:
        """Call `func` on each item and return the results in input order, as `list(map(func, iterable))`.

        Args:
            func: Called with one item.
            iterable: Read whole before the first call.
            chunksize: Items that travel, and fail, together: after a failure the rest of its chunk is not run. By
                default the pool chooses how many travel together from the time they take, and each fails alone.
            timeout: Seconds that the whole map may take; then what is left of it is ended, with the workers that run
                it. For a limit on each task: `options(timeout=)`.
            progress: True for a bar (tqdm's, in a notebook or terminal), "rich", "text" (needs nothing installed), or a
                callable that gets a `Report` now and then; called in the thread that waits.

        Raises:
            Exception: What the lowest failing item raised, once every item is done with; the worker's traceback is its
                cause.
            TimeoutError: The map was not done within `timeout`.
        """
        return self._mapped(func, MAP, iterable, chunksize, progress, timeout)

    def map_async(
        self,
        func: Callable[[T], R],
        iterable: Iterable[T],
        chunksize: int | None = None,
        callback: Callable[[list[R]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> Future[list[R]]:
        """Like `map`, but return a Future of the list at once."""
        _check_chunksize(chunksize)
        return self._map(func, MAP, read_whole(iterable), chunksize, callback, error_callback)

    def starmap(
        self,
        func: Callable[..., R],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        *,
        timeout: float | None = None,
        progress: Progress = None,
    ) -> list[R]:
        """Like `map`, with each item unpacked: `func(*item)`."""
        return self._mapped(func, STAR, iterable, chunksize, progress, timeout)

    def starmap_async(
        self,
        func: Callable[..., R],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[R]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> Future[list[R]]:
        """Like `starmap`, but return a Future of the list at once."""
        _check_chunksize(chunksize)
        return self._map(func, STAR, read_whole(iterable), chunksize, callback, error_callback)

    def _mapped(
        self,
        func: Callable[..., R],
        kind: int,
        iterable: Iterable[Any],
        chunksize: int | None,
        progress: Progress,
        timeout: float | None,
    ) -> list[R]:
        _check_chunksize(chunksize)
        _check_timeout(timeout)
        inputs = read_whole(iterable)
        if progress is None:
            progress = self._options.progress
        if progress is None or progress is False:
            mapped: Future[list[R]] = self._map(func, kind, inputs, chunksize)
            return mapped.result() if timeout is None else _in_time(mapped, timeout)
        from procflow.observe.progress import follow, open_display

        show = open_display(progress, len(inputs))
        watched: Future[list[R]] = self._map(func, kind, inputs, chunksize)
        left = follow(watched, len(inputs), show, timeout)
        return watched.result() if left is None else _in_time(watched, left)

    def _map(
        self,
        func: Callable[..., Any],
        kind: int,
        inputs: Sequence[Any],
        chunksize: int | None,
        callback: Callable[[list[R]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> Future[list[R]]:
        def prepare(future: MapFuture) -> None:
            future.callback = callback
            future.error_callback = error_callback

        return self._core.submit_map(func, kind, inputs, chunksize, prepare, self._options)  # type: ignore[return-value]

    # -- streams ------------------------------------------------------------------------------------------------------

    def imap(
        self,
        func: Callable[[T], R],
        iterable: Iterable[T],
        chunksize: int | None = None,
        *,
        buffersize: int | None = None,
        timeout: float | None = None,
        progress: Progress = None,
    ) -> ResultIterator[R]:
        """Call `func` on each item and yield the results in input order, while the input is still being read.

        By default, and with a `chunksize` of 1, each item has one outcome: `next` returns its result or raises its
        error. With a larger `chunksize` a failure is one outcome for the item and for the rest of its chunk, which is
        not run; the results before it in the chunk come first, and the iteration goes on with the next chunk.

        Args:
            func: Called with one item.
            iterable: Read in a thread of its own as there is room, so it may be endless, or wait for something; a list,
                tuple or range is read by the caller.
            chunksize: Items that travel, and fail, together. If their worker dies, one `WorkerDied` stands for those of
                them whose results had not come back, as a rule for all.
            buffersize: How many items may be read whose results were not taken yet; by default as many as keep the
                workers busy.
            timeout: Seconds that the stream may take as a whole; then `next` raises `TimeoutError`, and it ends.
            progress: As in `map`. It counts the results that were taken.

        Raises:
            Exception: From `next`: what the task raised; the iteration can go on. What the input raised comes after the
                results of the items before it.
        """
        return self._shown(func, iterable, chunksize, buffersize, progress, timeout, ordered=True)

    def imap_unordered(
        self,
        func: Callable[[T], R],
        iterable: Iterable[T],
        chunksize: int | None = None,
        *,
        buffersize: int | None = None,
        timeout: float | None = None,
        progress: Progress = None,
    ) -> ResultIterator[R]:
        """Like `imap`, failures included, but yield each result as soon as it is there."""
        return self._shown(func, iterable, chunksize, buffersize, progress, timeout, ordered=False)

    def _shown(
        self,
        func: Callable[[T], R],
        iterable: Iterable[T],
        chunksize: int | None,
        buffersize: int | None,
        progress: Progress,
        timeout: float | None,
        *,
        ordered: bool,
    ) -> ResultIterator[R]:
        _check_timeout(timeout)
        if buffersize is None:
            buffersize = self._options.buffersize
        if progress is None:
            progress = self._options.progress
        if progress is None or progress is False:
            results: ResultIterator[R] = self._stream(func, MAP, iterable, chunksize, buffersize, ordered=ordered)
        else:
            from procflow.observe.progress import Counter, length_of, open_display

            show = open_display(progress, length_of(iterable))
            results = self._stream(func, MAP, iterable, chunksize, buffersize, ordered=ordered)
            results.counter = Counter(length_of(iterable), show)
        if timeout is not None:
            results.limit(timeout)
        return results

    def _stream(
        self,
        func: Callable[..., R],
        kind: int,
        iterable: Iterable[Any],
        chunksize: int | None,
        buffersize: int | None,
        *,
        ordered: bool,
    ) -> ResultIterator[R]:
        core, options = self._core, self._options
        _check_chunksize(chunksize)
        if buffersize is not None and buffersize < (chunksize or 1):
            raise ValueError(f"buffersize must be at least chunksize ({chunksize or 1}), not {buffersize}")
        iterator = None if type(iterable) in (list, tuple, range) else iter(iterable)

        def make(job: Job) -> StreamJob:
            return StreamJob(job, options.wrap(func), kind, core, buffersize, ordered)

        job = core.open_stream(make, chunksize, options)
        if iterator is None:
            job.refill = sequence_refill(job, core, iterable)  # type: ignore[arg-type]
            job.refill()
        else:
            feeder = Feeder(job, core, iterator)
            job.refill = feeder.nudge
            feeder.start()
        return ResultIterator(job, core)

    # -- what it does -------------------------------------------------------------------------------------------------

    def subscribe(self, callback: Callable[[Event], object]) -> Subscription:
        """Have `callback(event)` called for what happens from now on, until the subscription is closed.

        Events are those of `procflow.observe.events`: workers start and end, packets of tasks are sent and done, tasks
        fail and begin again. They come in order, one at a time, in whichever thread serves the pool, as the callbacks
        of futures do: a callback may use the pool, and what it raises is logged. If it is slow, at most 10,000 events
        wait; how many more there were is told by an `EventsLost`. What has happened before the subscription is closed
        is told before that returns, unless a callback takes longer than a second. The first one who listens is told of
        the workers that are there, with the times at which they came.

        >>> from procflow import Pool
        >>> from procflow.observe.events import PacketDone
        >>> seen = []
        >>> with Pool(2) as pool, pool.subscribe(seen.append):
        ...     pool.map(abs, [-1, -2, -3])
        [1, 2, 3]
        >>> sum(event.items for event in seen if isinstance(event, PacketDone))
        3
        """
        from procflow.observe.audience import Audience, Subscription

        core = self._core
        audience = core.audience
        if not isinstance(audience, Audience):
            audience = Audience()
        audience.listeners = (*audience.listeners, callback)
        core.listen(audience)

        def end() -> None:
            core.tell_rest()
            left = list(audience.listeners)
            left.remove(callback)
            audience.listeners = tuple(left)
            if not left:
                core.listen(None)

        return Subscription(end)

    def record(self) -> Run:
        """Record what happens from now on, until the `with` block of what is returned ends; then save it as a file.

        >>> from procflow import Pool
        >>> with Pool(2) as pool:
        ...     with pool.record() as run:
        ...         squares = pool.starmap(pow, [(2, 2), (3, 2)])
        ...     run.analysis().tasks
        2
        """
        from procflow.observe.recording import Run

        return Run(self.subscribe)

    def statistics(self) -> PoolStatistics:
        """Return how many tasks wait, run, and have ended, and what each worker has done and holds.

        >>> from procflow import Pool
        >>> with Pool(2) as pool:
        ...     _ = pool.map(abs, range(10))
        ...     pool.statistics().done
        10
        """
        from procflow.observe.statistics import take

        return take(self._core)

    # -- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Accept no more work; the workers end when everything accepted is done."""
        self._core.close()
        self._when_dropped.detach()

    def terminate(self) -> None:
        """End the workers now. What is not done fails with PoolClosed."""
        self._core.terminate()
        self._when_dropped.detach()

    def join(self) -> None:
        """Wait until every worker has ended.

        Raises:
            ValueError: Neither close() nor terminate() was called before.
            OSError: What was to be recorded can't be saved. All workers have ended all the same.
        """
        core = self._core
        if not core.closed:
            raise ValueError("Pool is still running: call close() or terminate() before join()")
        core.join()
        _open.discard(core)
        while self._recorded:
            run, file = self._recorded.pop()
            run.stop()
            run.save(file)

    def __enter__(self) -> Self:
        self._core.check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if kind is None:
            self._core.abandon_streams()
            self.close()
            try:
                self.join()
                return
            except BaseException:  # Ctrl-C while waiting
                self.terminate()
                self.join()
                raise
        self.terminate()
        self.join()

    @staticmethod
    def _left_behind(core: Dispatcher) -> None:
        """The pool was dropped, neither closed nor terminated."""
        if core.closed:
            return
        try:
            warnings.warn(
                f"unclosed <Pool: {core.describe()}>: use `with`, or close() and join()",
                ResourceWarning,
                source=core,
                stacklevel=3,
            )
        finally:
            core.terminate_later()

    def __repr__(self) -> str:
        return f"<Pool of {self._core.scheduler.processes}: {self._core.describe()}>"

    def __reduce__(self) -> str:
        raise NotImplementedError("a Pool can't be passed between processes or pickled; make one where you need it")


def _choose_engine(engine: object) -> SerialEngine | RemoteEngine | None:
    """Return what is to be opened; None for the local engine, of which each pool makes its own."""
    if engine == "local":
        return None
    if engine == "serial":
        return SerialEngine()
    if isinstance(engine, str):
        raise ValueError(f"unknown engine {engine!r}: choose 'local', 'serial' or an engine of procflow.engines")
    from procflow.engines.remote import RemoteEngine

    if not isinstance(engine, RemoteEngine):
        raise TypeError(f"engine must be 'local', 'serial' or an engine of procflow.engines, not {engine!r}")
    return engine


def _check_honoured(engine: Engine, **asked: object) -> None:
    """Refuse what the engine can't do."""
    for option, value in asked.items():
        if option in engine.refuses and value:
            raise ValueError(f"{option}= can't be had on {engine!r}: {engine.refuses[option]}")


def _make_local(context: BaseContext | None, processes: int, setup: Setup) -> Engine:
    from procflow.engines.local import LocalEngine

    if context is None:
        from procflow.context import get_context

        context = get_context()
    elif not hasattr(context, "get_start_method"):
        raise TypeError(f"context must be a context, such as get_context('spawn'), not {context!r}")
    portable = asked_for()
    method: str = context.get_start_method()
    setup.check_for(method)
    return LocalEngine(method, setup, eager=processes <= default_workers(), portable=portable)


def read_whole(iterable: Iterable[T]) -> Sequence[T]:
    """Return what the caller can't change any more: a tuple or a range as it is, of anything else a list."""
    return iterable if type(iterable) in (tuple, range) else list(iterable)  # type: ignore[return-value]


def _check_chunksize(chunksize: int | None) -> None:
    if chunksize is not None and index(chunksize) < 1:
        raise ValueError(f"Chunksize must be 1+, not {chunksize}")


def _check_timeout(timeout: float | None) -> None:
    if timeout is not None and not as_number(timeout) >= 0:
        raise ValueError(f"timeout must be a number of seconds, at least 0, or None, not {timeout!r}")


def _in_time(mapped: Future[list[R]], timeout: float) -> list[R]:
    """Return the result of a map if it comes within so many seconds; else end what is left of it."""
    mapped.wait(timeout)
    if not mapped.done() and mapped.kill():
        raise TimeoutError(
            "the map was not done in the time that it was given, so what was left of it was ended. Allow it more, or "
            "each task a limit of its own: options(timeout=)"
        )
    return mapped.result()


@atexit.register
def _terminate_all() -> None:
    """Leave no worker behind at the interpreter's exit."""
    for dispatcher in list(_open):
        dispatcher.terminate()
