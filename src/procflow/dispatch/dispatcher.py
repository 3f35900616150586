"""The dispatcher: it joins one scheduler with one engine. Events in, commands out, results to their jobs.

    performer    any thread that caused commands: it pickles, writes and starts workers, outside the lock

D1  The scheduler is touched under the guard only. User code (pickling, callbacks, iterators) never runs under it.
D2  A command that was taken is performed or put back, also if Ctrl-C comes in between.
D3  Results are delivered by the leader, in the order of its reports; see `lead.py`.
"""

from __future__ import annotations

import itertools
import os
import sys
from time import monotonic

from procflow.dispatch.callbacks import Callbacks
from procflow.dispatch.future import Future
from procflow.dispatch.guard import Guard, step
from procflow.dispatch.jobs import CallsJob, MapFuture, MapJob
from procflow.dispatch.lead import Lead
from procflow.dispatch.outcome import Failure
from procflow.dispatch.stream import StreamJob
from procflow.engines.base import RAISED
from procflow.errors import (
    CancelledError,
    InitializerError,
    PicklingError,
    PoolBusy,
    PoolClosed,
    WorkerDied,
    describe_exit,
)
from procflow.scheduling.scheduler import Scheduler
from procflow.start.interrupted import of_a_signal
from procflow.wire.pickling import not_picklable
from procflow.wire.shown import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from procflow.dispatch.lead import Target, Waiter
    from procflow.engines.base import Engine, Report, Segment
    from procflow.scheduling.scheduler import Command, Job, Packet

    Work = CallsJob | MapJob | StreamJob

__all__ = ["Dispatcher"]

FEEDING_TICK = 1e-3  # seconds between looks at inputs that are being read
CUT_TIME = 20e-3  # seconds: several times what it takes to cut a packet short
STALL = 2e-3  # seconds between looks for workers that make no progress


class Dispatcher:
    """See the module."""

    def __init__(self, engine: Engine, processes: int, maxtasksperchild: int | None) -> None:
        self._engine = engine
        self._scheduler = Scheduler(processes, maxtasksperchild, engine.window, engine.most)
        self._guard = Guard()
        self._guard.torn = False
        self._taking_in = False  # the leader has reports in its hands
        self._callbacks = Callbacks()
        self._lead = Lead(self, self._guard, self._callbacks)
        self.inline = engine.inline
        self._pid = os.getpid()
        self._numbers = itertools.count(1)
        self._jobs: dict[int, Work] = {}
        self._feeding: set[StreamJob] = set()  # streams whose input is being read now
        self._put_back: list[Command] = []  # D2
        self._next_tick = 0.0
        self._closed = self._terminated = False
        self._unfinished: list[tuple[Job, int, int]] = []  # terminated, and still to be failed
        self._ended = False  # terminated, and nothing is left to do
        # A call may wait for what another one does: if they share a packet, it must be possible to cut that short.
        job = self._scheduler.add_job(next(self._numbers), most=engine.most if engine.cuts else 1)
        self._calls = self._jobs[job.id] = CallsJob(job)
        try:
            with self._guard:
                self._scheduler.open()
            self._perform()
            if not self.inline:
                self._lead.start()  # after the workers: a fork without threads is the safer one
                self._lead.watch()  # not all of them may have been launched yet
        except BaseException:  # Ctrl-C: nobody will have this object, so nobody could end what was started
            self._closed = self._lead.finished = True
            self._lead.stop()
            engine.terminate()
            engine.close()
            raise

    # -- accepting work -----------------------------------------------------------------------------------------------

    def submit(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        future: Future[Any] | None = None,
    ) -> Future[Any]:
        """Accept one call."""
        self.check_open()
        calls = self._calls
        try:
            packed = self._engine.pack_call(function, args, kwargs)
        except BaseException as refusal:  # the user's own reductions: anything may be raised
            if of_a_signal(refusal):
                raise
            made = future or Future(self, calls, 0)
            self._fail(made, not_picklable(f"the call of {shown(function)}", refusal))
            return made
        if future is None:
            future = Future(self, calls, 0)
        state = calls.state
        try:
            with self._guard:
                late = self._closed
                if not late:
                    index = future.index = state.added
                    calls.add(index, packed, future)
                    self._scheduler.add_items(state, 1)
            self._perform()
        except BaseException:
            self.tear()
            raise
        if late:  # another thread, or the pickling itself, has closed the pool since
            raise self._refusal()
        self._lead.watch()
        return future

    def new_call(self) -> Future[Any]:
        """Return a future that `submit` will fill, so that callbacks can be set on it first."""
        return Future(self, self._calls, 0)

    @step
    def submit_map(
        self,
        function: Callable[..., Any],
        kind: int,
        inputs: Sequence[Any],
        chunksize: int | None,
        prepare: Callable[[MapFuture], None],
    ) -> MapFuture:
        """Accept a map over a sequence."""
        self.check_open()
        future: MapFuture | None = None
        with self._guard:
            if not self._closed:
                job = self._scheduler.add_job(next(self._numbers), grain=chunksize or 1, adaptive=chunksize is None)
                made = self._jobs[job.id] = MapJob(job, function, kind, inputs)
                made.future = future = MapFuture(self, made, len(inputs))
                prepare(future)
                if inputs:
                    self._scheduler.add_items(job, len(inputs))
                self._scheduler.close_job(job)
        if future is None:
            raise self._refusal()
        self._perform()
        self._lead.watch()
        return future

    @step
    def open_stream(self, make: Callable[[Job], StreamJob], chunksize: int | None) -> StreamJob:
        """Accept a stream; its items come by `sync`."""
        self.check_open()
        made: StreamJob | None = None
        with self._guard:
            if not self._closed:
                job = self._scheduler.add_job(
                    next(self._numbers), grain=chunksize or 1, adaptive=chunksize is None, lazy=True
                )
                made = self._jobs[job.id] = make(job)
        if made is None:
            raise self._refusal()
        return made

    def check_open(self) -> None:
        """Refuse work that comes too late."""
        if self.inline and self._lead.dropped:
            self._lead.run_dropped()  # there is no background thread to do it
        if self._closed or self.foreign:
            raise self._refusal()
        if self._amid:
            raise PoolBusy

    @property
    def _amid(self) -> bool:
        """Whether the caller has interrupted this very thread amid a step: as a signal handler, or a finalizer."""
        return self._guard.held_here or (self._taking_in and self._lead.leads_here)

    def tear(self) -> None:
        """A step was interrupted: nothing can be trusted any more, so the pool is terminated."""
        self._guard.torn = True
        self._lead.later(self.terminate)

    def _refuse_fork(self) -> None:
        """A fork has copies of the locks, perhaps locked, and nobody serves its copy of the pool."""
        if self.foreign:
            raise self._refusal()

    def _refusal(self) -> PoolClosed:
        if self.foreign:
            return PoolClosed(
                f"this pool belongs to process {self._pid}, of which this process is a fork: make another one here"
            )
        return PoolClosed(f"Pool not running: it was {'terminated' if self._terminated else 'closed'}")

    # -- streams ------------------------------------------------------------------------------------------------------

    def room(self, job: StreamJob, held: int) -> int:
        """How many items of the stream's input may be read now."""
        if job.unbounded:
            return sys.maxsize
        return self._scheduler.room(job.state, held, job.buffersize)  # two ints: no lock is needed for an estimate

    @step
    def sync(self, job: StreamJob) -> None:
        """Tell the scheduler which items were read since."""
        with self._guard:
            self._sync(job)
        self._perform()
        self._lead.watch()

    def _sync(self, job: StreamJob) -> None:
        state = job.state
        if state.closed or state.id not in self._scheduler.jobs:
            return
        count = job.unseen()
        if count:
            self._scheduler.add_items(state, count)
        if job.exhausted and job.read == state.added:
            self._scheduler.close_job(state)

    @step
    def feeding(self, job: StreamJob, reads: bool) -> None:
        """The stream's feeder begins to read, or stops."""
        with self._guard:
            (self._feeding.add if reads else self._feeding.discard)(job)
            if reads:
                self.wake()  # a leader that sleeps learns that it has to look at this input

    @step
    def take_part(self, job: StreamJob) -> bool:
        """Make the stream's next part its `part`."""
        self._refuse_fork()
        if self._amid:
            raise PoolBusy
        with self._guard:
            return job.take()

    def abandon_streams(self) -> None:
        """End all streams: the with-block that they were made in is left."""
        with self._guard:
            streams = [job for job in self._jobs.values() if isinstance(job, StreamJob)]
        for job in streams:
            job.error = PoolClosed("the pool's with-block was left before the end of this stream, which ended it")
            job.abandoned = True
            self.abandon(job)

    @step
    def abandon(self, job: StreamJob) -> None:
        """The consumer wants no more of the stream."""
        if self.foreign:
            return
        if self._amid:
            self.abandon_later(job)
            return
        with self._guard:
            job.exhausted = True
            if job.state.id in self._scheduler.jobs:
                self._scheduler.cancel(job.state, 0, job.state.added)
                self._scheduler.close_job(job.state)
        job.refill()  # a feeder that waits for room learns that it is to stop
        self._perform()

    def abandon_later(self, job: StreamJob) -> None:
        """The consumer has dropped the stream: for a finalizer, so without a lock."""
        if self.foreign:
            return
        job.exhausted = True
        job.refill()  # stops the feeder, or does nothing
        self._lead.later(lambda: self.abandon(job))

    def close_later(self) -> None:
        """The pool was dropped, and what it has accepted is still wanted: for a finalizer, so without a lock."""
        self._lead.later(self.close)

    def hurry(self) -> None:
        """Nobody may wait for what comes, but somebody wants to be called at once when it comes."""
        self._lead.hurry()

    def terminate_later(self) -> None:
        """The pool was dropped: for a finalizer, so without a lock."""
        if not self.foreign:
            self._lead.later(self.terminate)

    def resolve_stream(self, job: StreamJob) -> None:
        """Something came for the stream's consumer."""
        job.is_done = True
        self._lead.resolved(job)

    # -- resolving ----------------------------------------------------------------------------------------------------

    def resolve(self, future: Future[Any]) -> None:
        """The future's outcome is set: run its own callbacks, then it is done."""
        if future.callback is not None or future.error_callback is not None:
            self._callbacks.add(lambda: self._call_back(future))
        else:
            self._mark_done(future)

    def _call_back(self, future: Future[Any]) -> None:
        try:
            outcome = future.decoded()
            if isinstance(outcome, Failure):
                if future.error_callback is not None:
                    future.error_callback(outcome.error)
            elif future.callback is not None:
                future.callback(outcome[0])
        finally:
            self._mark_done(future)

    def _mark_done(self, future: Future[Any]) -> None:
        future.is_done = True
        self._lead.resolved(future)
        if future.done_callbacks is not None:
            self._callbacks.add(*self._take_callbacks(future))

    def _take_callbacks(self, future: Future[Any]) -> list[Callable[[], object]]:
        with self._guard:
            callbacks, future.done_callbacks = future.done_callbacks, None
        return callbacks or []

    def _fail(self, future: Future[Any], error: BaseException) -> None:
        future.outcome = Failure(error)
        self.resolve(future)
        self._callbacks.run()

    @step
    def add_callback(self, future: Future[Any], callback: Callable[[], object]) -> None:
        """Have the callback run when the future is done, at once if it is."""
        self._refuse_fork()
        with self._guard:
            if future.done_callbacks is None:
                future.done_callbacks = []
            future.done_callbacks.append(callback)
        if future.is_done:  # perhaps since before, so that nobody will look at the list again
            self._callbacks.add(*self._take_callbacks(future))
            self._callbacks.run()

    def wait(self, target: Target, timeout: float | None = None) -> bool:
        """Wait until the target is done; False after `timeout` seconds."""
        if not target.is_done:
            self._refuse_fork()
            if self._amid:
                raise PoolBusy
        return self._lead.wait(target, timeout)

    # -- the leader's work --------------------------------------------------------------------------------------------

    def turn(self, timeout: float | None) -> bool:
        """Wait for reports, tell the scheduler, carry out what it decides, give the results to their jobs.

        Return whether something was reported.
        """
        if self._put_back:
            self._perform()
        if self._feeding:
            timeout = FEEDING_TICK if timeout is None else min(timeout, FEEDING_TICK)
        with self._guard:
            ticks, runs_dry = self._scheduler.wants_ticks, self._scheduler.runs_dry
        if ticks:
            timeout = STALL if timeout is None else min(timeout, STALL)
        if runs_dry:
            self._engine.hold()
        ready = self._engine.wait(timeout)
        self._taking_in = True
        try:
            return self._take_in(self._engine.collect(ready), ticks)
        except BaseException:  # Ctrl-C between two steps: what was reported may be lost
            self._guard.torn = True
            raise
        finally:
            self._taking_in = False

    def _take_in(self, reports: list[Report], ticks: bool) -> bool:
        if not reports and not self._feeding and not ticks:
            return False
        deliveries: list[tuple[Work, int, list[Segment]]] = []
        with self._guard:
            for report in reports:
                self._absorb(report, deliveries)
            for job in list(self._feeding):
                self._sync(job)
            if ticks and (now := monotonic()) >= self._next_tick:
                self._next_tick = now + STALL
                self._scheduler.tick()
        for work, at, segments in deliveries:
            for kind, items, data in segments:
                work.deliver(self, at, items, kind, data)
                at += items  # noqa: PLW2901 - it goes through the packet
            self._delivered(work)
        self._taking_in = False
        self._perform()
        return bool(reports)

    def _expect(self, work: Work) -> Work:
        """Somebody is about to deliver to this job. Under the lock."""
        work.delivery.expected += 1
        return work

    def _expect_of(self, job: int) -> None:
        """Somebody is about to fail items of this job. Under the lock."""
        work = self._jobs.get(job)
        if work is not None:  # else a signal has interrupted the pool, and all its jobs were failed
            self._expect(work)

    def _delivered(self, work: Work, *, finishing: bool = False) -> None:
        """A delivery was made, or (`finishing`) the scheduler said that all are: whichever is last finishes the job."""
        delivery = work.delivery
        with self._guard:
            if finishing:
                delivery.finishing = True
            else:
                delivery.expected -= 1
            last = delivery.finishing and not delivery.expected
            if last:
                delivery.finishing = False
                self._jobs.pop(work.id, None)
        if last:
            self._engine.forget(work.id)
            work.finish(self)

    def _absorb(self, report: Report, deliveries: list[tuple[Work, int, list[Segment]]]) -> None:
        """Tell the scheduler of one report. Under the lock."""
        scheduler = self._scheduler
        worker = report[1]
        if worker not in scheduler.workers or (self._terminated and report[0] != "gone"):
            return
        if report[0] == "answer":
            _, _, seq, seconds, final, segments = report
            packet = scheduler.workers[worker].inflight[seq]
            work = self._jobs.get(packet.job.id)
            if work is not None:
                deliveries.append((self._expect(work), packet.done, segments))
            scheduler.answered(worker, seq, sum([items for _, items, _ in segments]), seconds, final)
        elif report[0] == "ready":
            scheduler.worker_ready(worker)
        elif report[0] == "split":
            scheduler.split(scheduler.workers[worker].inflight[report[2]])
        elif report[0] == "cut":
            scheduler.cut_off(worker, report[2], report[3])
        else:
            _, _, begun, item, width, pid, exitcode, text = report
            scheduler.worker_gone(worker, begun, item, width, (pid, exitcode, text))
            self._engine.reap(worker)

    def _perform(self) -> None:
        """Carry out the scheduler's commands until there are none."""
        scheduler = self._scheduler
        while scheduler.commands or self._put_back:  # a look without the lock: who adds a command comes here after it
            with self._guard:
                fresh = scheduler.take()
                commands, self._put_back = self._put_back + fresh, []
                for command in fresh:
                    if command[0] == "retire":
                        self._engine.retire(command[1])
                    elif command[0] == "cut":
                        self._engine.cut(command[1])
                    elif command[0] == "take_back":
                        scheduler.taken_back(command[1], self._engine.take_back(command[1]))
                    elif command[0] == "lost" or command[0] == "unstartable":
                        self._expect_of(command[1])
            done = 0
            try:
                for command in commands:
                    self._perform_one(command)
                    done += 1
            except BaseException:
                with self._guard:
                    self._put_back += commands[done:]
                raise

    def _perform_one(self, command: Command) -> None:
        """Carry out one command. It may be carried out again from the beginning if it was interrupted."""
        if command[0] == "encode":
            self._send(command[1])
        elif command[0] == "start":
            self._engine.start(command[1])
        elif command[0] == "finished":
            work = self._jobs.get(command[1])
            if work is not None:
                self._delivered(work, finishing=True)
        elif command[0] == "lost":
            _, job_id, start, stop, cause = command
            pid, exitcode, _ = cause
            self._fail_items(job_id, start, stop, lambda task: WorkerDied(task, pid, exitcode, True))
        elif command[0] == "unstartable":
            _, job_id, start, stop, attempts, cause = command
            pid, exitcode, text = cause
            text = (
                text
                or f"Worker {pid} {describe_exit(exitcode)} before it was ready: in the initializer, if there is one."
            )
            self._fail_items(job_id, start, stop, lambda _: InitializerError(attempts, text))

    def _fail_items(self, job_id: int, start: int, stop: int, error: Callable[[int], BaseException]) -> None:
        """Fail these items, chunk by chunk. The delivery was announced by `_expect`."""
        work = self._jobs.get(job_id)
        if work is None:
            return
        while start < stop:
            items = min(work.grain, stop - start)
            work.deliver(self, start, items, RAISED, error(work.task_number(start)))
            start += items
        self._delivered(work)

    def _send(self, packet: Packet) -> None:
        """Pickle a packet's items outside the lock, then write them, unless the packet was withdrawn meanwhile."""
        work = self._jobs.get(packet.job.id)
        if work is None or packet.state == "sent":
            return
        engine, scheduler = self._engine, self._scheduler
        with self._guard:
            oldest = min(next(iter(self._jobs), packet.job.id), packet.job.id)
        try:
            encoded = engine.encode(work, packet, oldest)
        except BaseException as refusal:  # the user's own reductions: anything may be raised
            if of_a_signal(refusal):
                raise
            self._refuse(work, packet, refusal)
            return
        with self._guard:
            if scheduler.encoded(packet):
                if not engine.send(packet, encoded):
                    scheduler.unsent(packet)
                elif packet.divisible and not self._lead.leads_here:
                    self.wake()  # the leader learns that it has to look at this worker
            else:
                engine.discard(encoded)

    def _refuse(self, work: Work, packet: Packet, refusal: BaseException) -> None:
        """The packet does not pickle: find the chunk that is the cause by sending each alone, and fail that."""
        start, stop = packet.start, packet.stop
        alone = stop - start <= packet.job.grain
        with self._guard:
            if not alone:
                self._scheduler.split(packet)
                return
            if not self._scheduler.encoded(packet):
                return
        error = (
            refusal
            if isinstance(refusal, PicklingError)
            else not_picklable(f"item {start} of {shown(work.function)}", refusal)
        )
        work.deliver(self, start, stop - start, RAISED, error)
        with self._guard:
            self._scheduler.unencodable(packet)

    # -- cancelling ---------------------------------------------------------------------------------------------------

    def is_held(self, job: CallsJob | MapJob, index: int) -> bool:
        """Whether a worker holds the item; of a map (-1): any item."""
        self._refuse_fork()
        state = job.state
        with self._guard:
            if index < 0:
                return bool(state.waiting < state.added - state.resolved)
            return not any(s[0] == state.id and s[1] <= index < s[2] for s in self._scheduler.ready)

    def cancel(self, future: Future[Any], job: CallsJob | MapJob, index: int) -> bool:
        """Cancel what a future stands for, if none of it has begun."""
        self._refuse_fork()
        if self._amid:
            raise PoolBusy
        if index < 0:
            return self._cancel_map(future, job.state)
        if self._cancel_call(job.state, index):
            return True
        with self._guard:
            worker = self._scheduler.holder(job.state, index) or self._scheduler.runner(job.state, index)
            if worker is None or not self._engine.cuts:
                return False
            if not self._engine.cutting(worker.id):  # else it was just asked to give back what it has not read
                self._engine.cut(worker.id)
        self.wait(_Uncut(self._engine, worker.id), CUT_TIME)
        return self._cancel_call(job.state, index)

    @step
    def _cancel_call(self, state: Job, index: int) -> bool:
        """Cancel a call that waits, or is on its way to a worker, or in its pipe."""
        with self._guard:
            scheduler = self._scheduler
            removed = scheduler.cancel(state, index, index + 1) or scheduler.withdraw(state, index)
            while not removed and (holder := scheduler.holder(state, index)) is not None:
                seq = self._engine.take_back(holder.id)
                if seq is None:
                    break
                scheduler.taken_back(holder.id, seq)  # it may be on its way to another worker by now
                removed = scheduler.cancel(state, index, index + 1) or scheduler.withdraw(state, index)
        if removed:
            error = CancelledError("the task was cancelled before it started; it never ran")
            self._calls.deliver(self, index, 1, RAISED, error)
        self._perform()
        self._callbacks.run()
        return bool(removed)

    @step
    def _cancel_map(self, future: Future[Any], state: Job) -> bool:
        """A map is cancelled whole, and only while all of it waits."""
        with self._guard:
            if future.is_done or state.waiting != state.added or not state.waiting:
                return False
            self._scheduler.cancel(state, 0, state.added)
            self._jobs.pop(state.id, None)  # so that its "finished" finds nobody: the future is failed here
        self._perform()
        self._fail(future, CancelledError("the map was cancelled before any of it started; it never ran"))
        return True

    # -- the end ------------------------------------------------------------------------------------------------------

    @step
    def close(self) -> None:
        """Accept no more work; workers go when all is done."""
        if self.foreign:
            return
        if self._amid:
            self._lead.later(self.close)
            return
        streams: list[StreamJob] = []
        with self._guard:
            if not self._closed:
                self._closed = True
                streams = [job for job in self._jobs.values() if isinstance(job, StreamJob)]
                self._scheduler.close_job(self._calls.state)
                self._scheduler.close()
        for job in streams:  # nobody may come for their results before `join`; so they are no longer bounded
            job.unbounded = True
            job.refill()
        self._perform()
        self._lead.watch()

    @step
    def terminate(self) -> None:
        """End all workers now; what is not done fails with PoolClosed."""
        if self.foreign:
            return
        if self._amid:  # the processes end now; what this thread was at has to be left before the rest is done
            self._closed = True
            self._engine.terminate()
            self.tear()
            return
        with self._guard:
            if not self._terminated and not self._guard.torn:
                self._closed = self._terminated = True
                self._unfinished = self._scheduler.terminate()
                for job, _, _ in self._unfinished:
                    self._expect_of(job.id)
                self.wake()
        if self._guard.torn:
            self._end_torn()
        else:
            self._end()

    def _end_torn(self) -> None:
        """As `_end`, without a look at what the scheduler, the engine's reports and the deliveries say. Repeatable."""
        with self._guard:
            if self._ended and not self._jobs and not self._scheduler.workers:
                return
            self._closed = self._terminated = True
            works = list(self._jobs.values())
            self._scheduler.abandon()
            self._put_back.clear()
            self._unfinished.clear()
            self._feeding.clear()
        self._engine.terminate()
        for work in works:
            work.abort(
                self, PoolClosed("the pool was terminated, as a signal had interrupted it; the task may have run")
            )
            self._jobs.pop(work.id, None)
        with self._guard:
            self._scheduler.workers.clear()  # all have ended; `close` of the engine releases what they held
            self._ended = True
            self.wake()
        self._callbacks.run()
        self._lead.watch()

    def _end(self) -> None:
        """What `terminate` has to do but once. If it is interrupted, the next `terminate` goes on with it."""
        if self._ended:
            return
        self._perform()  # failures that were decided before
        while self._unfinished:
            job, start, stop = self._unfinished.pop()
            self._fail_items(
                job.id, start, stop, lambda _: PoolClosed("the pool was terminated; the task may have run")
            )
        for job_id in list(self._jobs):
            work = self._jobs.get(job_id)
            if work is None:  # another thread is at it
                continue
            self._delivered(work, finishing=True)
            if isinstance(work, StreamJob):
                if not work.exhausted and work.error is None:
                    work.error = PoolClosed("the pool was terminated before the end of this stream")
                work.exhausted = True
                work.refill()
        self._engine.terminate()
        self._ended = True
        self._callbacks.run()
        self._lead.watch()

    def wake(self) -> None:
        """End the leader's wait early. Under the lock."""
        if not self._lead.finished:
            self._engine.wake()

    def kick(self) -> None:
        """End the leader's wait early; for a finalizer, so without a lock."""
        self._engine.wake()

    def release(self) -> None:
        """All workers are gone and nobody will lead again."""
        self._engine.close()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all workers are gone, and release everything; False after `timeout` seconds."""
        if self.foreign:
            return True
        if self._guard.torn and self._amid:  # terminate() was called here; the processes are gone
            return True
        if not self.wait(_Released(self._lead, self), timeout):
            return False
        if self._lead.finished:  # else this thread leads, and releases everything when it is back there
            self._lead.stop()
        return True

    @property
    def closed(self) -> bool:
        """Whether it takes no more work."""
        return self._closed or self.foreign

    @property
    def foreign(self) -> bool:
        """Whether this process is a fork of the one that the pool belongs to."""
        return self._pid != os.getpid()

    @property
    def busy(self) -> bool:
        """Whether something is to come: an answer, a worker's end, or its launch."""
        torn = self._guard.torn and self._ended  # then there is still `release` to come
        return self._scheduler.busy or self._engine.launching or torn

    @property
    def all_gone(self) -> bool:
        """Whether the pool is closed and no worker is left."""
        return self._closed and not self._scheduler.workers

    def describe(self) -> str:
        """Say in a few words what the pool is doing."""
        scheduler = self._scheduler
        state = "terminated" if self._terminated else "closed" if self._closed else "open"
        return f"{state}, {scheduler.alive} workers, {scheduler.unresolved} tasks to do"


class _Uncut:
    """What `cancel` waits for: the engine knows whether a worker has obeyed."""

    waiters: list[Waiter] | None = None

    def __init__(self, engine: Engine, worker: int) -> None:
        self._engine, self._worker = engine, worker

    @property
    def is_done(self) -> bool:
        return not self._engine.cutting(self._worker)

    def digest(self) -> None:
        pass


class _Released:
    """What `join` waits for. Every leader looks at it after each turn; nobody has to resolve it."""

    waiters: list[Waiter] | None = None

    def __init__(self, lead: Lead, core: Dispatcher) -> None:
        self._lead, self._core = lead, core
        self._nested = lead.leads_here  # the leader itself asks, from a signal handler

    @property
    def is_done(self) -> bool:
        return self._lead.finished or (self._nested and self._core.all_gone)

    def digest(self) -> None:
        pass
