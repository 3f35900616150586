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
from collections import deque
from time import monotonic

from procflow.dispatch.callbacks import Callbacks
from procflow.dispatch.cancelling import Cancelling
from procflow.dispatch.ending import Ending
from procflow.dispatch.future import Future
from procflow.dispatch.guard import Guard, step
from procflow.dispatch.jobs import CallsJob, MapFuture, MapJob
from procflow.dispatch.lead import Lead
from procflow.dispatch.options import Options
from procflow.dispatch.outcome import Failure
from procflow.dispatch.records import handle
from procflow.dispatch.story import add_story, story_of
from procflow.dispatch.stream import StreamJob
from procflow.engines.base import PUT_OFF, RAISED
from procflow.errors import (
    EngineError,
    InitializerError,
    PicklingError,
    PoolBusy,
    PoolClosed,
    TaskKilled,
    TaskTimeout,
    WorkerDied,
    describe_exit,
)
from procflow.scheduling.scheduler import KILLED, OVERDUE, Scheduler
from procflow.shown import shown
from procflow.start.interrupted import of_a_signal
from procflow.wire.packets import AGAIN, CALLS, FAILURE
from procflow.wire.pickling import not_picklable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    from procflow.dispatch.in_asyncio import Pumps
    from procflow.dispatch.lead import Target
    from procflow.engines.base import Engine, Report, Segment
    from procflow.scheduling.scheduler import Command, Job, Packet

    Work = CallsJob | MapJob | StreamJob

    class Audience(Protocol):
        """Who is told what happens: `observe.audience`, a layer that imports this one."""

        def tell(
            self, happened: list[tuple[Any, ...]], function_of: Callable[[int], object], callbacks: Callbacks
        ) -> None: ...


__all__ = ["Dispatcher"]

FEEDING_TICK = 1e-3  # seconds between looks at inputs that are being read
STALL = 2e-3  # seconds between looks for workers that make no progress
SHORTEST_LOOK, LONGEST_LOOK = 1e-3, 3600.0  # seconds between looks at the clock
KINDS_MOST = 16  # options of separate calls that are remembered
DEFAULT = Options()


class Dispatcher:
    """See the module."""

    def __init__(
        self, engine: Engine, processes: int, maxtasksperchild: int | None, start_timeout: float = 0.0
    ) -> None:
        self.engine = engine
        self.scheduler = Scheduler(
            processes,
            maxtasksperchild,
            engine.window,
            engine.most,
            start_timeout,
            engine.stretch,
            cuts=engine.cuts,
            cores=engine.cores,
        )
        self.guard = Guard()
        self.guard.torn = False
        self._taking_in = False  # the leader has reports in its hands
        self.callbacks = Callbacks()
        self.lead = Lead(self, self.guard, self.callbacks)
        self.inline = engine.inline
        self._pid = os.getpid()
        self._numbers = itertools.count(1)
        self.jobs: dict[int, Work] = {}
        self.streams_read: set[StreamJob] = set()  # streams whose input is being read now
        self.put_back: list[Command] = []  # D2
        self.failed = 0  # tasks
        self.audience: Audience | None = None  # see `observe.audience`; told by the leader, after each turn
        self._records: deque[bytes] = deque()  # log records, for a moment
        self._next_tick = 0.0
        self._pumps: Pumps | None = None  # made when a coroutine waits
        self.cancelling, self.ending = Cancelling(self), Ending(self)
        self.calls: dict[object, CallsJob] = {}  # by the options that their calls have in common
        try:
            with self.guard:
                self.scheduler.open()
            self.perform()
            if not self.inline:
                self.lead.start()  # after the workers: a fork without threads is the safer one
                self.lead.watch()  # not all of them may have been launched yet
        except BaseException:  # Ctrl-C: nobody will have this object, so nobody could end what was started
            self.ending.closed = self.lead.finished = True
            self.lead.stop()
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
        options: Options = DEFAULT,
    ) -> Future[Any]:
        """Accept one call."""
        self.check_open()
        calls = self.calls.get(options.key) or self._open_calls(options)
        try:
            packed = self.engine.pack_call(options.wrap(function), args, kwargs)
        except BaseException as refusal:  # the user's own reductions: anything may be raised
            if of_a_signal(refusal):
                raise
            made = future or Future(self, calls, 0)
            self.fail(
                made,
                not_picklable(
                    f"the call of {shown(function)}", refusal, {"fn": function, "args": args, "kwargs": kwargs}
                ),
            )
            return made
        if future is None:
            future = Future(self, calls, 0)
        try:
            with self.guard:
                late = self.ending.closed
                if not late:
                    if calls.state.closed:  # since we looked it up, calls with many other options have come
                        calls = future.job = self._open_calls(options)
                    state = calls.state
                    if self.audience is not None:
                        self.scheduler.now = monotonic()
                    index = future.index = state.added
                    calls.add(index, packed, future)
                    self.scheduler.add_items(state, 1)
            self.perform()
        except BaseException:
            self.tear()
            raise
        if late:  # another thread, or the pickling itself, has closed the pool since
            raise self.refusal()
        self.lead.watch()
        return future

    def reserve_number(self) -> int:
        """Return the number of a call whose items are submitted one by one, or some at a time."""
        return next(self._numbers)

    def new_call(self, options: Options = DEFAULT) -> Future[Any]:
        """Return a future that `submit` will fill, so that callbacks can be set on it first."""
        self.check_open()
        return Future(self, self.calls.get(options.key) or self._open_calls(options), 0)

    def _open_calls(self, options: Options) -> CallsJob:
        """Return the job of the separate calls with these options."""
        engine = self.engine
        with self.guard:
            calls = self.calls.get(options.key)
            if calls is None:
                if self.ending.closed:
                    raise self.refusal()
                if len(self.calls) >= KINDS_MOST:
                    oldest = next(key for key in self.calls if key != DEFAULT.key)
                    self.scheduler.close_job(self.calls.pop(oldest).state)  # it is forgotten when its calls are done
                # A call may wait for what another one does: if they share a packet, it must be possible to cut that
                # short.
                most = engine.most if engine.cuts else 1
                job = self.scheduler.add_job(next(self._numbers), most=most, limits=options.limits)
                calls = self.jobs[job.id] = CallsJob(job)
                self.calls[options.key] = calls
        return calls

    @step
    def submit_map(
        self,
        function: Callable[..., Any],
        kind: int,
        inputs: Sequence[Any],
        chunksize: int | None,
        prepare: Callable[[MapFuture], None],
        options: Options = DEFAULT,
    ) -> MapFuture:
        """Accept a map over a sequence."""
        self.check_open()
        future: MapFuture | None = None
        with self.guard:
            if not self.ending.closed:
                job = self.scheduler.add_job(
                    next(self._numbers), grain=chunksize or 1, adaptive=chunksize is None, limits=options.limits
                )
                made = self.jobs[job.id] = MapJob(job, options.wrap(function), kind, inputs)
                made.future = future = MapFuture(self, made, len(inputs))
                prepare(future)
                if inputs:
                    self.scheduler.add_items(job, len(inputs))
                self.scheduler.close_job(job)
        if future is None:
            raise self.refusal()
        self.perform()
        self.lead.watch()
        return future

    @step
    def open_stream(
        self, make: Callable[[Job], StreamJob], chunksize: int | None, options: Options = DEFAULT
    ) -> StreamJob:
        """Accept a stream; its items come by `sync`."""
        self.check_open()
        made: StreamJob | None = None
        with self.guard:
            if not self.ending.closed:
                job = self.scheduler.add_job(
                    next(self._numbers),
                    grain=chunksize or 1,
                    adaptive=chunksize is None,
                    lazy=True,
                    limits=options.limits,
                )
                made = self.jobs[job.id] = make(job)
        if made is None:
            raise self.refusal()
        return made

    def check_open(self) -> None:
        """Refuse work that comes too late."""
        if self.inline and self.lead.dropped:
            self.lead.run_dropped()  # there is no background thread to do it
        if self.ending.closed or self._pid != os.getpid():
            raise self.refusal()
        if self.amid:
            raise PoolBusy

    @property
    def amid(self) -> bool:
        """Whether the caller has interrupted this very thread amid a step: as a signal handler, or a finalizer."""
        return self.guard.held_here() or (self._taking_in and self.lead.leads_here)

    def tear(self) -> None:
        """A step was interrupted: nothing can be trusted any more, so the pool is terminated."""
        self.guard.torn = True
        self.lead.later(self.terminate)

    def refuse_fork(self) -> None:
        """A fork has copies of the locks, perhaps locked, and nobody serves its copy of the pool."""
        if self.foreign:
            raise self.refusal()

    def refusal(self) -> PoolClosed:
        if self.foreign:
            return PoolClosed(
                f"this pool belongs to process {self._pid}, of which this process is a fork: make another one here"
            )
        if self.ending.why:
            return EngineError(self.ending.why)
        return PoolClosed(f"Pool not running: it was {'terminated' if self.ending.terminated else 'closed'}")

    # -- streams ------------------------------------------------------------------------------------------------------

    def room(self, job: StreamJob, held: int) -> int:
        """How many items of the stream's input may be read now."""
        if job.unbounded:
            return sys.maxsize
        return self.scheduler.room(job.state, held, job.buffersize)  # two ints: no lock is needed for an estimate

    @step
    def sync(self, job: StreamJob) -> None:
        """Tell the scheduler which items were read since."""
        with self.guard:
            self._sync(job)
        self.perform()
        self.lead.watch()

    def _sync(self, job: StreamJob) -> None:
        state = job.state
        if state.closed or state.id not in self.scheduler.jobs:
            return
        count = job.unseen()
        if count:
            self.scheduler.add_items(state, count)
        if job.exhausted and job.read == state.added:
            self.scheduler.close_job(state)

    @step
    def feeding(self, job: StreamJob, reads: bool) -> None:
        """The stream's feeder begins to read, or stops."""
        with self.guard:
            (self.streams_read.add if reads else self.streams_read.discard)(job)
            if reads:
                self.wake()  # a leader that sleeps learns that it has to look at this input

    @step
    def take_part(self, job: StreamJob) -> bool:
        """Make the stream's next part its `part`."""
        self.refuse_fork()
        if self.amid:
            raise PoolBusy
        with self.guard:
            return job.take()

    def abandon_streams(self) -> None:
        """End all streams: the with-block that they were made in is left."""
        with self.guard:
            streams = [job for job in self.jobs.values() if isinstance(job, StreamJob)]
        for job in streams:
            job.error = PoolClosed("the pool's with-block was left before the end of this stream, which ended it")
            job.abandoned = True
            self.abandon(job)

    @step
    def abandon(self, job: StreamJob) -> None:
        """The consumer wants no more of the stream."""
        if self.foreign:
            return
        if self.amid:
            self.abandon_later(job)
            return
        with self.guard:
            job.exhausted = True
            self.scheduler.drop(job.state, end=False)
        job.refill()  # a feeder that waits for room learns that it is to stop
        self.perform()

    def abandon_later(self, job: StreamJob) -> None:
        """The consumer has dropped the stream: for a finalizer, so without a lock."""
        if self.foreign:
            return
        job.exhausted = True
        job.refill()  # stops the feeder, or does nothing
        self.lead.later(lambda: self.abandon(job))

    def close_later(self) -> None:
        """The pool was dropped, and what it has accepted is still wanted: for a finalizer, so without a lock."""
        self.lead.later(self.close)

    def hurry(self) -> None:
        """Nobody may wait for what comes, but somebody wants to be called at once when it comes."""
        self.lead.hurry()

    def terminate_later(self) -> None:
        """The pool was dropped: for a finalizer, so without a lock."""
        if not self.foreign:
            self.lead.later(self.terminate)

    def resolve_stream(self, job: StreamJob) -> None:
        """Something came for the stream's consumer."""
        job.is_done = True
        self.lead.resolved(job)

    # -- resolving ----------------------------------------------------------------------------------------------------

    def resolve(self, future: Future[Any]) -> None:
        """The future's outcome is set: run its own callbacks, then it is done."""
        if future.callback is not None or future.error_callback is not None:
            self.callbacks.append(lambda: self._call_back(future))
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
        self.lead.resolved(future)
        if future.done_callbacks is not None:
            self.callbacks += self._take_callbacks(future)

    def _take_callbacks(self, future: Future[Any]) -> list[Callable[[], object]]:
        with self.guard:
            callbacks, future.done_callbacks = future.done_callbacks, None
        return callbacks or []

    def fail(self, future: Future[Any], error: BaseException) -> None:
        future.outcome = Failure(error)
        self.resolve(future)
        self.callbacks.run()

    @step
    def add_callback(self, future: Future[Any], callback: Callable[[], object]) -> None:
        """Have the callback run when the future is done, at once if it is."""
        self.refuse_fork()
        with self.guard:
            if future.done_callbacks is None:
                future.done_callbacks = []
            future.done_callbacks.append(callback)
        if future.is_done:  # perhaps since before, so that nobody will look at the list again
            self.callbacks += self._take_callbacks(future)
            self.callbacks.run()

    def wait(self, target: Target, timeout: float | None = None) -> bool:
        """Wait until the target is done; False after `timeout` seconds."""
        if not target.is_done:
            if self._pid != os.getpid():
                raise self.refusal()
            if self.amid:
                raise PoolBusy
        return self.lead.wait(target, timeout)

    async def sleep(self, target: Target, timeout: float | None = None) -> None:
        """Wait in an asyncio coroutine until the target is done, or, at the latest, for `timeout` seconds."""
        self.refuse_fork()
        if self.amid:
            raise PoolBusy
        pumps = self._pumps or self._make_pumps()
        await pumps.wait(target, timeout)

    def _make_pumps(self) -> Pumps:
        from procflow.dispatch.in_asyncio import Pumps

        with self.guard:
            if self._pumps is None:
                self._pumps = Pumps(self.lead, self.engine.fileno())
            return self._pumps

    # -- the leader's work --------------------------------------------------------------------------------------------

    def turn(self, timeout: float | None) -> bool:
        """Wait for reports, tell the scheduler, carry out what it decides, give the results to their jobs.

        Return whether something was reported.
        """
        if self.put_back:
            self.perform()
        if self.streams_read:
            timeout = FEEDING_TICK if timeout is None else min(timeout, FEEDING_TICK)
        with self.guard:
            scheduler = self.scheduler
            ticks, runs_dry = scheduler.wants_ticks, scheduler.runs_dry
            left = self._look_at_the_clock() if scheduler.timed or scheduler.delayed else None
        if ticks:
            left = STALL if left is None else min(left, STALL)
        if left is not None:
            timeout = left if timeout is None else min(timeout, left)
        self.perform()  # what the look has given rise to
        if runs_dry:
            self.engine.hold()
        ready = self.engine.wait(timeout)
        self._taking_in = True
        try:
            return self._take_in(self.engine.collect(ready), ticks)
        except BaseException:  # Ctrl-C between two steps: what was reported may be lost
            self.guard.torn = True
            raise
        finally:
            self._taking_in = False
            if self.scheduler.happened:
                self._tell()

    def _look_at_the_clock(self) -> float | None:
        """Tell the scheduler the time; return after how many seconds it wants to know it again. Under the lock."""
        scheduler, now = self.scheduler, monotonic()
        looks = [scheduler.release(now)]
        if scheduler.timed:
            looks.append(scheduler.overdue(now, self.engine.running()))
        return min([min(max(look, SHORTEST_LOOK), LONGEST_LOOK) for look in looks if look is not None], default=None)

    def _take_in(self, reports: list[Report], ticks: bool) -> bool:
        if not reports and not self.streams_read and not ticks:
            return False
        deliveries: list[tuple[Work, int, list[Segment]]] = []
        with self.guard:
            self.scheduler.now = monotonic()
            for report in reports:
                self._absorb(report, deliveries)
            for job in list(self.streams_read):
                self._sync(job)
            if ticks and (now := monotonic()) >= self._next_tick:
                self._next_tick = now + STALL
                self.scheduler.tick()
        while self._records:
            handle(self._records.popleft())  # before the results of the tasks that have logged them
        for work, at, segments in deliveries:
            for kind, items, data in segments:
                if kind != PUT_OFF:
                    work.deliver(self, at, items, kind, data)
                    if kind in (FAILURE, RAISED):
                        self._note_failed(work, at, items, "raised")
                at += items  # noqa: PLW2901 - it goes through the packet
            self.delivered(work)
        self._taking_in = False
        self.perform()
        return bool(reports)

    def _note_failed(self, work: Work, index: int, items: int, why: str) -> None:
        """Some tasks, of one chunk, have failed by an exception."""
        self.failed += items
        happened = self.scheduler.happened
        if happened is not None:
            happened.append(("failed", monotonic(), work.id, index, items, why))

    def listen(self, audience: Audience | None) -> None:
        """From now on tell this one what happens, or nobody."""
        with self.guard:
            self.audience = audience
            self.scheduler.happened = None if audience is None else self.scheduler.present()
            self.wake()

    def _tell(self) -> None:
        """Tell who listens what has happened; it only takes it in, and has its listeners called with the callbacks."""
        with self.guard:
            audience, happened = self.audience, self.scheduler.happened
            if audience is not None:
                self.scheduler.happened = []
        if audience is not None and happened:
            audience.tell(happened, self.function_of, self.callbacks)

    def tell_rest(self) -> None:
        """Tell who listens what nobody has told yet; a callback that takes longer than a second is not waited for."""
        self._tell()
        self.callbacks.settle(1.0)

    def function_of(self, job: int) -> object:
        """The function of a job; None of separate calls, and of a job that is over."""
        work = self.jobs.get(job)
        return None if work is None or work.kind == CALLS else work.function

    def _expect(self, work: Work) -> Work:
        """Somebody is about to deliver to this job. Under the lock."""
        work.delivery.expected += 1
        return work

    def expect_of(self, job: int) -> None:
        """Somebody is about to fail items of this job. Under the lock."""
        work = self.jobs.get(job)
        if work is not None:  # else a signal has interrupted the pool, and all its jobs were failed
            self._expect(work)

    def delivered(self, work: Work, *, finishing: bool = False) -> None:
        """A delivery was made, or (`finishing`) the scheduler said that all are: whichever is last finishes the job."""
        delivery = work.delivery
        with self.guard:
            if finishing:
                delivery.finishing = True
            else:
                delivery.expected -= 1
            last = delivery.finishing and not delivery.expected and self.jobs.pop(work.id, None) is not None
        if last:
            self.engine.forget(work.id)
            work.finish(self)

    def _absorb(self, report: Report, deliveries: list[tuple[Work, int, list[Segment]]]) -> None:
        """Tell the scheduler of one report. Under the lock."""
        scheduler = self.scheduler
        worker = report[1]
        if worker not in scheduler.workers or (self.ending.terminated and report[0] != "gone"):
            if report[0] == "slots":
                scheduler.resize(report[2])
            elif report[0] == "down" and not self.ending.terminated:
                self.ending.why = report[2]
                self.lead.later(self.terminate)
            return
        if report[0] == "answer":
            _, _, seq, seconds, final, segments = report
            packet = scheduler.workers[worker].inflight[seq]
            work = self.jobs.get(packet.job.id)
            again = self._put_off(packet, segments) if packet.job.limits.retries and work is not None else []
            if work is not None:
                deliveries.append((self._expect(work), packet.done, segments))
            count = sum([items for _, items, _ in segments])
            if again:
                scheduler.answered(worker, seq, count, seconds, final, again, monotonic())
            else:
                scheduler.answered(worker, seq, count, seconds, final)
        elif report[0] == "ready":
            scheduler.worker_ready(worker)
        elif report[0] == "record":
            self._records.append(report[2])
        elif report[0] == "split":
            scheduler.split(scheduler.workers[worker].inflight[report[2]])
        elif report[0] == "cut":
            scheduler.cut_off(worker, report[2], report[3])
        elif report[0] == "lost":
            scheduler.packet_lost(worker, report[2], (0, None, report[3]), monotonic())
        elif report[0] == "gone":
            _, _, begun, item, width, pid, exitcode, text = report
            scheduler.worker_gone(worker, begun, item, width, (pid, exitcode, text), monotonic())
            self.engine.reap(worker)

    def _put_off(self, packet: Packet, segments: list[Segment]) -> list[tuple[int, int]]:
        """Return the spans that begin again, and mark their failures, which nobody is to get. Under the lock."""
        again: list[tuple[int, int]] = []
        at = packet.done
        for place, (kind, items, data) in enumerate(segments):
            if kind & AGAIN:
                if self.scheduler.may_begin_again(packet.job, at, at + 1):
                    again.append((at, at + items))
                    segments[place] = (PUT_OFF, items, None)
                else:
                    segments[place] = (kind & ~AGAIN, items, data)
            at += items
        return again

    def perform(self) -> None:
        """Carry out the scheduler's commands until there are none."""
        scheduler = self.scheduler
        while scheduler.commands or self.put_back:  # a look without the lock: who adds a command comes here after it
            with self.guard:
                scheduler.now = monotonic()
                fresh = scheduler.take()
                commands, self.put_back = self.put_back + fresh, []
                for command in fresh:
                    if command[0] == "retire":
                        self.engine.retire(command[1])
                    elif command[0] == "cut":
                        self.engine.cut(command[1])
                    elif command[0] == "take_back":
                        _, worker, begun = command
                        scheduler.taken_back(worker, self.engine.take_back(worker, begun))
                    elif command[0] == "expel":
                        _, worker, seq, item, since = command
                        while (unread := self.engine.take_back(worker)) is not None:
                            scheduler.taken_back(worker, unread)
                        self.engine.expel(worker, seq, item, since)
                    elif command[0] == "lost" or command[0] == "unstartable":
                        self.expect_of(command[1])
            done = 0
            try:
                for command in commands:
                    self._perform_one(command)
                    done += 1
            except BaseException:
                with self.guard:
                    self.put_back += commands[done:]
                raise

    def _perform_one(self, command: Command) -> None:
        """Carry out one command. It may be carried out again from the beginning if it was interrupted."""
        if command[0] == "encode":
            self._send(command[1])
        elif command[0] == "start":
            self.engine.start(command[1], command[2])
        elif command[0] == "finished":
            work = self.jobs.get(command[1])
            if work is not None:
                self.delivered(work, finishing=True)
        elif command[0] == "lost":
            _, job_id, start, stop, cause, why = command
            pid, exitcode, text = cause
            work = self.jobs.get(job_id)
            limit = work.state.limits.timeout if work is not None else 0.0
            detail = "" if pid else text
            if why == OVERDUE:
                self.fail_items(job_id, start, stop, lambda task: TaskTimeout(task, limit, pid, text))
            elif why == KILLED:
                self.fail_items(job_id, start, stop, lambda task: TaskKilled(task, pid))
            else:
                self.fail_items(job_id, start, stop, lambda task: WorkerDied(task, pid, exitcode, True, detail))
        elif command[0] == "unstartable":
            _, job_id, start, stop, attempts, (pid, exitcode, text), why = command
            if why == OVERDUE:
                text = _told_late(pid, self.scheduler.start_timeout, text)
            elif not text:
                text = (
                    f"Worker {pid} {describe_exit(exitcode)} before it was ready: in the initializer, if there is one"
                )
            self.fail_items(job_id, start, stop, lambda _: InitializerError(attempts, text))

    def fail_items(self, job_id: int, start: int, stop: int, error: Callable[[int], BaseException]) -> None:
        """Fail these items, chunk by chunk. The delivery was announced by `_expect`."""
        work = self.jobs.get(job_id)
        if work is None:
            return
        with self.guard:
            history, now = list(self.scheduler.history), self.scheduler.now
        while start < stop:
            items = min(work.grain, stop - start)
            made = error(work.task_number(start))
            add_story(made, story_of(history, job_id, start, now))
            work.deliver(self, start, items, RAISED, made)
            self.failed += items
            start += items
        self.delivered(work)

    def _send(self, packet: Packet) -> None:
        """Pickle a packet's items outside the lock, then write them, unless the packet was withdrawn meanwhile."""
        work = self.jobs.get(packet.job.id)
        if work is None or packet.state == "sent":
            return
        engine, scheduler = self.engine, self.scheduler
        with self.guard:
            with_functions = (number for number, job in self.jobs.items() if job.kind != CALLS)
            oldest = min(next(with_functions, packet.job.id), packet.job.id)
        try:
            encoded = engine.encode(work, packet, oldest)
        except BaseException as refusal:  # the user's own reductions: anything may be raised
            if of_a_signal(refusal):
                raise
            self._refuse(work, packet, refusal)
            return
        with self.guard:
            if scheduler.encoded(packet):
                if not engine.send(packet, encoded):
                    scheduler.unsent(packet)
                elif packet.divisible and not self.lead.leads_here:
                    self.wake()  # the leader learns that it has to look at this worker
            else:
                engine.discard(encoded)

    def _refuse(self, work: Work, packet: Packet, refusal: BaseException) -> None:
        """The packet does not pickle: find the chunk that is the cause by sending each alone, and fail that."""
        start, stop = packet.start, packet.stop
        alone = stop - start <= packet.job.grain
        with self.guard:
            if not alone:
                self.scheduler.split(packet)
                return
            if not self.scheduler.encoded(packet):
                return
        if isinstance(refusal, PicklingError):
            error = refusal
        else:
            parts = {f"item {index}": item for index, item in enumerate(work.items(start, stop), start)}
            error = not_picklable(f"item {start} of {shown(work.function)}", refusal, parts)
        work.deliver(self, start, stop - start, RAISED, error)
        with self.guard:
            self.scheduler.unencodable(packet)

    # -- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Accept no more work; workers go when all is done."""
        self.ending.close()

    def terminate(self) -> None:
        """End all workers now; what is not done fails with PoolClosed."""
        self.ending.terminate()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all workers are gone, and release everything; False after `timeout` seconds."""
        return self.ending.join(timeout)

    def wake(self) -> None:
        """End the leader's wait early. Under the lock."""
        if not self.lead.finished:
            self.engine.wake()

    def kick(self) -> None:
        """End the leader's wait early; for a finalizer, so without a lock."""
        self.engine.wake()

    def release(self) -> None:
        """All workers are gone and nobody will lead again."""
        if self._pumps is not None:
            self._pumps.end()
        self.engine.close()

    @property
    def closed(self) -> bool:
        """Whether it takes no more work."""
        return self.ending.closed or self.foreign

    @property
    def foreign(self) -> bool:
        """Whether this process is a fork of the one that the pool belongs to."""
        return self._pid != os.getpid()

    @property
    def busy(self) -> bool:
        """Whether something is to come: an answer, a worker's end, or its launch."""
        torn = self.guard.torn and self.ending.over  # then there is still `release` to come
        return self.scheduler.busy or self.engine.launching or torn

    @property
    def delayed(self) -> bool:
        """Whether something waits until it may begin again."""
        return bool(self.scheduler.delayed)

    @property
    def all_gone(self) -> bool:
        """Whether the pool is closed and no worker is left, nor anything to do for one that a cluster may get."""
        return self.ending.closed and not self.scheduler.workers and not self.scheduler.unresolved

    def describe(self) -> str:
        """Say in a few words what the pool is doing."""
        scheduler = self.scheduler
        state = "terminated" if self.ending.terminated else "closed" if self.ending.closed else "open"
        return f"{state}, {scheduler.alive} workers, {scheduler.unresolved} tasks to do"


def _told_late(pid: int, limit: float, stack: str) -> str:
    where = f" It was here:\n{stack}" if stack else ""
    return (
        f"Worker {pid} was not ready within {limit} s, so it was ended. Is something that its initializer waits for "
        f"missing? Else allow it more time: Pool(start_timeout=).{where}"
    )
