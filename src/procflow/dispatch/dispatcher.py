"""The dispatcher: it joins one scheduler with one engine, and says which thread does the work.

    leader       the one thread that polls the engine: whoever waits for a result, else the background thread
    follower     another thread that waits; it is woken when its own target is done, or when it is to lead
    performer    any thread that caused commands: it pickles, writes and starts workers outside the lock

D1  The scheduler is touched under `_lock` only. User code (pickling, callbacks, iterators) never runs under it.
D2  At most one thread leads. It gives the lead up before it runs a callback, so callbacks may wait for other results.
D3  A command that was taken is performed or put back, also if Ctrl-C comes in between.
D4  While something is to come, somebody leads: within a tick of the background thread if nobody waits.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections import deque
from time import monotonic

from procflow.dispatch.background import Background
from procflow.dispatch.future import Future, remaining
from procflow.dispatch.jobs import CallsJob, MapFuture, MapJob
from procflow.dispatch.outcome import Failure
from procflow.dispatch.stream import StreamJob
from procflow.engines.base import RAISED
from procflow.errors import CancelledError, InitializerError, PicklingError, PoolClosed, WorkerDied, describe_exit
from procflow.scheduling.scheduler import Scheduler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    from procflow.engines.base import Engine, Report
    from procflow.scheduling.scheduler import Command, Packet

    class Target(Protocol):
        """What a thread can wait for."""

        _done: bool
        _waiters: list[Waiter] | None

        def _digest(self) -> None: ...


__all__ = ["Dispatcher", "Waiter"]

FEEDING_TICK = 1e-3  # seconds between looks at inputs that are being read


class Waiter:
    """A follower: a lock that is released to wake it."""

    __slots__ = ("lock", "promoted")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()
        self.promoted = False

    def wake(self) -> None:
        try:
            self.lock.release()
        except RuntimeError:  # woken already
            pass


class _Guard:
    """The pool's lock. An exception that leaves the block (only Ctrl-C can) may have torn the scheduler's state."""

    __slots__ = ("_acquire", "_release", "torn")

    def __init__(self) -> None:
        lock = threading.Lock()
        self._acquire, self._release = lock.acquire, lock.release
        self.torn = False

    def __enter__(self) -> None:
        self._acquire()

    def __exit__(self, kind: object, error: object, where: object) -> None:
        if kind is not None:
            self.torn = True
        self._release()


class Dispatcher:
    """See the module."""

    def __init__(self, engine: Engine, processes: int, maxtasksperchild: int | None) -> None:
        self._engine = engine
        self._scheduler = Scheduler(processes, maxtasksperchild, engine.window, engine.most)
        self._lock = _Guard()
        self._pid = os.getpid()
        self._numbers = itertools.count(1)
        self._jobs: dict[int, CallsJob | MapJob | StreamJob] = {}
        self._feeding: set[StreamJob] = set()  # streams whose input is being read now
        self._leader: int | None = None  # its thread's ident
        self._leads = 0  # how often the lead was taken
        self._followers: dict[Waiter, None] = {}  # oldest first
        self._put_back: deque[Command] = deque()  # D3
        self._callbacks: deque[Callable[[], object]] = deque()
        self._calling: int | None = None  # the thread that runs callbacks
        self._closed = self._terminated = False
        self._finished = False  # every worker is gone and the engine is closed
        self._background = Background(self)
        job = self._scheduler.add_job(next(self._numbers))
        self._calls = self._jobs[job.id] = CallsJob(job)
        with self._lock:
            self._scheduler.open()
        self._perform()

    # -- accepting work -----------------------------------------------------------------------------------------------

    def submit(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], future: Future[Any] | None = None) -> Future[Any]:
        """Accept one call."""
        self.check_open()
        calls = self._calls
        try:
            packed = self._engine.pack_call(function, args, kwargs)
        except Exception as refusal:
            made = future or Future(self, calls, 0)
            self._fail(made, _not_picklable(f"the call of {function!r}", refusal))
            return made
        with self._lock:
            index = calls.state.added
            if future is None:
                future = Future(self, calls, index)
            else:
                future._index = index
            calls.add(index, packed, future)
            self._scheduler.add_items(calls.state, 1)
        self._perform()
        self._watch()
        return future

    def new_call(self) -> Future[Any]:
        """Return a future that `submit` will fill, so that callbacks can be set on it first."""
        return Future(self, self._calls, 0)

    def submit_map(self, function: Callable[..., Any], kind: int, inputs: Sequence[Any], chunksize: int | None, prepare: Callable[[MapFuture], None]) -> MapFuture:
        """Accept a map over a sequence."""
        self.check_open()
        with self._lock:
            job = self._scheduler.add_job(next(self._numbers), grain=chunksize or 1, adaptive=chunksize is None)
            made = self._jobs[job.id] = MapJob(job, function, kind, inputs)
            made.future = future = MapFuture(self, made, len(inputs))
            prepare(future)
            if inputs:
                self._scheduler.add_items(job, len(inputs))
            self._scheduler.close_job(job)
        self._perform()
        self._watch()
        return future

    def open_stream(self, make: Callable[[Any], StreamJob], chunksize: int | None) -> StreamJob:
        """Accept a stream; its items come by `sync`."""
        self.check_open()
        with self._lock:
            job = self._scheduler.add_job(
                next(self._numbers), grain=chunksize or 1, adaptive=chunksize is None, lazy=True
            )
            made = self._jobs[job.id] = make(job)
        return made

    def check_open(self) -> None:
        """Refuse work that comes too late. What slips through, while another thread closes, is still done."""
        if self.foreign:
            raise PoolClosed(
                f"this pool belongs to process {self._pid}, of which this process is a fork. Make a pool of its own here."
            )
        if self._terminated:
            raise PoolClosed("Pool not running: it was terminated")
        if self._closed:
            raise PoolClosed("Pool not running: it was closed")

    # -- streams ------------------------------------------------------------------------------------------------------

    def room(self, job: StreamJob, held: int) -> int:
        """How many items of the stream's input may be read now."""
        if job.unbounded:
            return sys.maxsize
        return self._scheduler.room(job.state, held, job.buffersize)  # two ints: no lock is needed for an estimate

    def sync(self, job: StreamJob) -> None:
        """Tell the scheduler which items were read since."""
        with self._lock:
            self._sync(job)
        self._perform()
        self._watch()

    def _sync(self, job: StreamJob) -> None:
        state = job.state
        if state.closed or state.id not in self._scheduler.jobs:
            return
        count = job.unseen()
        if count:
            self._scheduler.add_items(state, count)
        if job.exhausted and job.read == state.added:
            self._scheduler.close_job(state)

    def feeding(self, job: StreamJob, reads: bool) -> None:
        """The stream's feeder begins to read, or stops."""
        with self._lock:
            (self._feeding.add if reads else self._feeding.discard)(job)
            if reads and not self._finished:
                self._engine.wake()  # a leader that sleeps learns that it has to look at this input

    def take_part(self, job: StreamJob) -> tuple[int, object] | None:
        """Take the stream's next part."""
        with self._lock:
            return job.take()

    def abandon_streams(self) -> None:
        """End all streams: the with-block that they were made in is left."""
        with self._lock:
            streams = [job for job in self._jobs.values() if isinstance(job, StreamJob)]
        for job in streams:
            job.error = PoolClosed("the pool's with-block was left before the end of this stream, which ended it")
            job.abandoned = True
            self.abandon(job)

    def abandon(self, job: StreamJob) -> None:
        """The consumer wants no more of the stream."""
        with self._lock:
            job.exhausted = True
            if job.state.id in self._scheduler.jobs:
                self._scheduler.cancel(job.state, 0, job.state.added)
                self._scheduler.close_job(job.state)
        job.refill()  # a feeder that waits for room learns that it is to stop
        self._perform()

    def resolve_stream(self, job: StreamJob) -> None:
        """Something came for the stream's consumer."""
        job._done = True
        self._wake_waiters(job)

    # -- resolving ----------------------------------------------------------------------------------------------------

    def resolve(self, future: Future[Any]) -> None:
        """The future's outcome is set: run its own callbacks, then it is done."""
        if future.callback is not None or future.error_callback is not None:
            self._callbacks.append(lambda: self._call_back(future))
        else:
            self._mark_done(future)

    def _call_back(self, future: Future[Any]) -> None:
        try:
            outcome = future._decoded()
            if isinstance(outcome, Failure):
                if future.error_callback is not None:
                    future.error_callback(outcome.error)
            elif future.callback is not None:
                future.callback(outcome[0])
        finally:
            self._mark_done(future)

    def _mark_done(self, future: Future[Any]) -> None:
        future._done = True
        self._wake_waiters(future)
        callbacks = future._callbacks
        if callbacks is not None:
            with self._lock:
                future._callbacks = None
            self._callbacks.extend(callbacks)

    def _wake_waiters(self, target: Target) -> None:
        waiters = target._waiters
        if waiters:
            for waiter in list(waiters):
                waiter.wake()

    def _fail(self, future: Future[Any], error: BaseException) -> None:
        future._outcome = Failure(error)
        self.resolve(future)
        self._run_callbacks()

    def add_callback(self, future: Future[Any], callback: Callable[[], object]) -> bool:
        """Add a callback to a future that is not done; False if it is."""
        with self._lock:
            if future._done:
                return False
            if future._callbacks is None:
                future._callbacks = []
            future._callbacks.append(callback)
            return True

    def call(self, callback: Callable[[], object]) -> None:
        """Run a callback now, as callbacks are run."""
        self._callbacks.append(callback)
        self._run_callbacks()

    def _run_callbacks(self) -> None:
        """Run the callbacks that are due, one after the other: no two at once, as users of multiprocessing rely on.

        If another thread is running them, it goes on with ours. If it is this thread (a callback waits for a result whose
        own callback is due), they run nested, or it would wait for itself.
        """
        me = threading.get_ident()
        if self._calling not in (None, me):
            return
        outer, self._calling = self._calling, me
        try:
            while self._callbacks:
                try:
                    self._callbacks.popleft()()
                except Exception:
                    import logging  # noqa: PLC0415 - rare, and 15 ms

                    logging.getLogger("procflow").exception("a callback raised; the pool goes on")
        finally:
            self._calling = outer

    # -- waiting ------------------------------------------------------------------------------------------------------

    @staticmethod
    def deadline(timeout: float | None) -> float | None:
        """The point on the clock `timeout` seconds from now."""
        return None if timeout is None else monotonic() + timeout

    def wait(self, target: Target, timeout: float | None = None) -> bool:
        """Wait until the target is done, leading if nobody does; False after `timeout` seconds."""
        if target._done:
            return True
        deadline = None if timeout is None else monotonic() + timeout
        me = threading.get_ident()
        while True:
            waiter: Waiter | None = None
            with self._lock:
                if target._done:
                    return True
                nested = self._leader == me  # we are in user code that was called while leading (pickling)
                if self._leader is None:
                    self._leader = me
                    self._leads += 1
                elif not nested:
                    waiter = self._follow(target)
            if waiter is not None:
                self._await_turn(waiter, target, remaining(deadline))
            elif nested:
                self._lead(target, deadline)
            else:
                try:
                    self._lead(target, deadline)
                finally:
                    self._hand_over()
            if self._callbacks:
                self._run_callbacks()
            target._digest()
            if not target._done and deadline is not None and monotonic() >= deadline:
                return False

    def _follow(self, target: Target) -> Waiter:
        """Become a follower. Under the lock."""
        waiter = Waiter()
        self._followers[waiter] = None
        if target._waiters is None:
            target._waiters = []
        target._waiters.append(waiter)
        if self._leader == self._background.ident and not self._finished:
            self._engine.wake()
        return waiter

    def _await_turn(self, waiter: Waiter, target: Target, timeout: float | None) -> None:
        try:
            waiter.lock.acquire(timeout=-1 if timeout is None else timeout)
        finally:
            with self._lock:
                self._followers.pop(waiter, None)
                if target._waiters is not None and waiter in target._waiters:
                    target._waiters.remove(waiter)
                if waiter.promoted and self._leader is None and target._done:
                    self._promote()

    def _lead(self, target: Target, deadline: float | None) -> None:
        """Poll until the target is done, the deadline has passed, or callbacks are due."""
        while not target._done and not self._callbacks and not self.all_gone:
            self._turn(remaining(deadline))
            if target._done:
                return
            target._digest()
            if deadline is not None and monotonic() >= deadline:
                return

    def _hand_over(self) -> None:
        """Give the lead up. The last one to do so, when all workers are gone, releases the engine."""
        with self._lock:
            self._leader = None
            last = self.all_gone and not self._finished
            if last:
                self._finished = True
            self._promote()
        if last:
            self._engine.close()
        elif self._lock.torn:
            self.terminate()
        else:
            self._watch()

    def _promote(self) -> None:
        """Wake the oldest follower: it will find that nobody leads. Under the lock."""
        for waiter in self._followers:
            if not waiter.promoted:
                waiter.promoted = True
                waiter.wake()
                return

    def _watch(self) -> None:
        """See to it that the background thread looks after what is to come (D4)."""
        if self._engine.inline:
            self._run_inline()
        elif self._background.parked and self._scheduler.busy:
            self._background.unpark()

    def _run_inline(self) -> None:
        """An engine that runs tasks in the caller's thread: run what waits, now, unless another thread is at it."""
        me = threading.get_ident()
        with self._lock:
            nested = self._leader == me  # a task of this pool uses the pool
            if not self._scheduler.busy or self._finished or self._leader not in (None, me):
                return
            self._leader = me
        try:
            while self._scheduler.busy and self._turn(0.0):
                pass
        finally:
            if not nested:
                self._hand_over()
        self._run_callbacks()

    # -- the background thread's part ---------------------------------------------------------------------------------

    def try_lead(self, ident: int, leads: int) -> bool:
        """The background thread asks for the lead: it gets it if nobody led since `leads` and something is to come."""
        with self._lock:
            if self._leader is not None or self._leads != leads or not self._scheduler.busy or self._finished:
                return False
            self._leader = ident
            return True

    def lead_in_background(self) -> None:
        """Poll until a thread comes that waits, or nothing is to come."""
        try:
            while self._scheduler.busy and not self._followers and not self.all_gone:
                self._turn(None)
                if self._callbacks:
                    break
        finally:
            self._hand_over()
        self._run_callbacks()

    @property
    def leads(self) -> int:
        """How often the lead was taken by threads that wait."""
        return self._leads

    @property
    def busy(self) -> bool:
        """Whether something is to come."""
        return self._scheduler.busy and not self._finished  # two reads: an estimate needs no lock

    # -- the leader's work --------------------------------------------------------------------------------------------

    def _turn(self, timeout: float | None) -> bool:
        """Wait for reports, tell the scheduler, carry out what it decides, give the results to their jobs.

        Return whether something was reported.
        """
        if self._put_back:
            self._perform()
        if self._feeding:
            timeout = FEEDING_TICK if timeout is None else min(timeout, FEEDING_TICK)
        ready = self._engine.wait(timeout)
        try:
            return self._take_in(self._engine.collect(ready))
        except BaseException:  # Ctrl-C between two steps: what was reported may be lost
            self._lock.torn = True
            raise

    def _take_in(self, reports: list[Report]) -> bool:
        if not reports and not self._feeding:
            return False
        deliveries: list[tuple[int, int, int, int, object]] = []
        with self._lock:
            for report in reports:
                self._absorb(report, deliveries)
            for job in list(self._feeding):
                self._sync(job)
        for job_id, start, items, kind, data in deliveries:
            job = self._jobs.get(job_id)
            if job is not None:
                job.deliver(self, start, items, kind, data)
        self._perform()
        return bool(reports)

    def _absorb(self, report: Report, deliveries: list[tuple[int, int, int, int, object]]) -> None:
        """Tell the scheduler of one report. Under the lock."""
        scheduler = self._scheduler
        worker = report[1]
        if worker not in scheduler.workers or (self._terminated and report[0] != "gone"):
            return
        if report[0] == "answer":
            _, _, seq, seconds, final, segments = report
            packet = scheduler.workers[worker].inflight[seq]
            job, at = packet.job.id, packet.done
            for kind, items, data in segments:
                deliveries.append((job, at, items, kind, data))
                at += items
            scheduler.answered(worker, seq, at - packet.done, seconds, final)
        elif report[0] == "ready":
            scheduler.worker_ready(worker)
        elif report[0] == "split":
            scheduler.split(scheduler.workers[worker].inflight[report[2]])
        else:
            _, _, begun, item, width, pid, exitcode, text = report
            scheduler.worker_gone(worker, begun, item, width, (pid, exitcode, text))
            self._engine.reap(worker)

    def _perform(self) -> None:
        """Carry out the scheduler's commands until there are none."""
        while True:
            with self._lock:
                commands: deque[Command] = deque(self._put_back)
                self._put_back.clear()
                commands.extend(self._scheduler.take())
                for command in commands:
                    if command[0] == "retire":
                        self._engine.retire(command[1])
                    elif command[0] == "take_back":
                        self._scheduler.taken_back(command[1], self._engine.take_back(command[1]))
            if not commands:
                return
            try:
                while commands:
                    self._perform_one(commands[0])
                    commands.popleft()
            finally:
                self._put_back.extend(commands)

    def _perform_one(self, command: Command) -> None:
        """Carry out one command. It may be carried out again from the beginning if it was interrupted."""
        if command[0] == "encode":
            self._send(command[1])
        elif command[0] == "start":
            self._engine.start(command[1])
        elif command[0] == "finished":
            job = self._jobs.pop(command[1], None)
            if job is not None:
                job.finish(self)
                self._engine.forget(command[1])
        elif command[0] == "lost":
            _, job_id, start, stop, cause = command
            pid, exitcode, _ = cause  # type: ignore[misc]
            self._fail_items(job_id, start, stop, lambda task: WorkerDied(task, pid, exitcode, True))
        elif command[0] == "unstartable":
            _, job_id, start, stop, attempts, cause = command
            pid, exitcode, text = cause  # type: ignore[misc]
            text = text or f"worker {pid} {describe_exit(exitcode)} before it was ready\n"
            self._fail_items(job_id, start, stop, lambda _: InitializerError(attempts, text))

    def _fail_items(self, job_id: int, start: int, stop: int, error: Callable[[int], BaseException]) -> None:
        """Fail these items, chunk by chunk."""
        job = self._jobs.get(job_id)
        if job is None:
            return
        while start < stop:
            items = min(job.grain, stop - start)
            job.deliver(self, start, items, RAISED, error(job.task_number(start)))
            start += items

    def _send(self, packet: Packet) -> None:
        """Pickle a packet's items outside the lock, then write them, unless the packet was withdrawn meanwhile."""
        work = self._jobs.get(packet.job.id)
        if work is None or packet.state == "sent":
            return
        engine, scheduler = self._engine, self._scheduler
        oldest = next(iter(self._jobs))
        try:
            encoded = engine.encode(work, packet, min(oldest, packet.job.id))
        except Exception as refusal:  # noqa: BLE001 - the user's own reductions: anything may be raised
            self._refuse(work, packet, refusal)
            return
        with self._lock:
            if scheduler.encoded(packet):
                if not engine.send(packet, encoded):
                    scheduler.unsent(packet)
            else:
                engine.discard(encoded)

    def _refuse(self, work: CallsJob | MapJob | StreamJob, packet: Packet, refusal: Exception) -> None:
        """The packet does not pickle: find the chunk that is the cause by sending each alone, and fail that."""
        start, stop = packet.start, packet.stop
        alone = stop - start <= packet.job.grain
        with self._lock:
            if not alone:
                self._scheduler.split(packet)
                return
            if not self._scheduler.encoded(packet):
                return
        error = refusal if isinstance(refusal, PicklingError) else _not_picklable(f"item {start} of {work.function!r}", refusal)
        work.deliver(self, start, stop - start, RAISED, error)
        with self._lock:
            self._scheduler.unencodable(packet)

    # -- cancelling ---------------------------------------------------------------------------------------------------

    def is_held(self, job: object, index: int) -> bool:
        """Whether a worker holds the item; of a map (-1): any item."""
        state = job.state  # type: ignore[attr-defined]
        with self._lock:
            if index < 0:
                return bool(state.waiting < state.added - state.resolved)
            return not any(s[0] == state.id and s[1] <= index < s[2] for s in self._scheduler.ready)

    def cancel(self, future: Future[Any], job: object, index: int) -> bool:
        """Cancel what a future stands for, if none of it has begun."""
        state = job.state  # type: ignore[attr-defined]
        if index < 0:
            return self._cancel_map(future, state)
        with self._lock:
            removed = self._scheduler.cancel(state, index, index + 1)
            while not removed and (holder := self._scheduler.holder(state, index)) is not None:
                seq = self._engine.take_back(holder.id)
                if seq is None:
                    break
                self._scheduler.taken_back(holder.id, seq)
                removed = self._scheduler.cancel(state, index, index + 1)
        if removed:
            error = CancelledError("the task was cancelled before it started; it never ran")
            self._calls.deliver(self, index, 1, RAISED, error)
        self._perform()
        self._run_callbacks()
        return bool(removed)

    def _cancel_map(self, future: Future[Any], state: Any) -> bool:
        """A map is cancelled whole, and only while all of it waits."""
        with self._lock:
            if future._done or state.waiting != state.added or not state.waiting:
                return False
            self._scheduler.cancel(state, 0, state.added)
            self._scheduler.take()
            self._jobs.pop(state.id, None)
        self._fail(future, CancelledError("the map was cancelled before any of it started; it never ran"))
        return True

    # -- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Accept no more work; workers go when all is done."""
        if self.foreign:
            return
        streams: list[StreamJob] = []
        with self._lock:
            if not self._closed:
                self._closed = True
                streams = [job for job in self._jobs.values() if isinstance(job, StreamJob)]
                self._scheduler.close_job(self._calls.state)
                self._scheduler.close()
        for job in streams:  # nobody may come for their results before `join`; so they are no longer bounded
            job.unbounded = True
            job.refill()
        self._perform()
        self._watch()

    def terminate(self) -> None:
        """End all workers now; what is not done fails with PoolClosed."""
        if self.foreign:
            return
        with self._lock:
            if self._terminated:
                return
            self._closed = self._terminated = True
            spans = self._scheduler.terminate()
            if not self._finished:
                self._engine.wake()
        self._engine.terminate()
        for job, start, stop in spans:
            self._fail_items(job.id, start, stop, lambda _: PoolClosed("the pool was terminated; the task may have run"))
        for job_id in list(self._jobs):
            job = self._jobs.pop(job_id)
            job.finish(self)
            if isinstance(job, StreamJob):
                job.exhausted = True
                job.refill()
        self._run_callbacks()
        self._watch()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all workers are gone, and release everything; False after `timeout` seconds."""
        if self.foreign:
            return True
        if not self.wait(_AllGone(self), timeout):
            return False
        self._background.stop()
        return True

    @property
    def closed(self) -> bool:
        """Whether it takes no more work."""
        return self._closed

    @property
    def foreign(self) -> bool:
        """Whether this process is a fork of the one that the pool belongs to."""
        return self._pid != os.getpid()

    @property
    def finished(self) -> bool:
        """Whether everything is released."""
        return self._finished

    @property
    def all_gone(self) -> bool:
        """Whether the pool is closed and no worker is left."""
        return self._closed and not self._scheduler.workers

    def describe(self) -> str:
        """Say in a few words what the pool is doing."""
        scheduler = self._scheduler
        state = "terminated" if self._terminated else "closed" if self._closed else "open"
        return f"{state}, {scheduler.alive} workers, {scheduler.unresolved} tasks to do"


class _AllGone:
    """What `join` waits for. It is looked at after every turn; nobody has to resolve it."""

    _waiters: list[Waiter] | None = None

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    @property
    def _done(self) -> bool:
        return self._dispatcher.finished

    def _digest(self) -> None:
        pass


def _not_picklable(what: str, refusal: BaseException) -> PicklingError:
    error = PicklingError(
        f"{what} can't be pickled, so it can't be sent to a worker: {type(refusal).__name__}: {refusal}. "
        "Does it hold a lock, a file or a connection? Create that inside the task or in the initializer."
    )
    error.__cause__ = refusal
    return error
