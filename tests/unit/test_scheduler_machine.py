"""Hypothesis plays engine and driver over the scheduler: every order of events that real workers can bring about.

The model knows what the scheduler can't: what each worker really has read, begun and finished. So it can demand that

M1  no item begins twice, unless its job allows another attempt; and each is resolved exactly once: answered, lost,
    unstartable, cancelled, refused or returned by `terminate`;
M2  what is reported lost is at most the chunks that the dead worker's status page names, and what it ran unreported;
M3  a worker begins at most `maxtasksperchild` chunks;
M4  `finished` comes once for each closed job, after its last item;
M5  when the engine does its part, everything ends: all items resolved, all jobs finished, all workers gone;
M6  an item begins at most `retries + 1` times, and not before its backoff is over;
M7  with a worker that is ended for an item, only that item's chunk is lost, and for the reason that was given.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from procflow.scheduling.scheduler import DIED, KILLED, OVERDUE, UNLIMITED, Job, Limits, Packet, Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable

    from procflow.scheduling.scheduler import Cause, Command

JOBS = 4  # few: each run is then far enough from its beginning to be interesting
STEPS = 5000  # more than so few jobs can need to come to rest
CAUSE: Cause = (4711, -9, "")
LIMITS = (
    UNLIMITED,
    Limits(timeout=2.0),
    Limits(retries=2, outlives=frozenset([DIED, OVERDUE])),
    Limits(timeout=1.0, retries=1, backoff=0.5, outlives=frozenset([OVERDUE])),
)

numbers = st.integers(0, 10_000)


@dataclass
class Work:
    """A job, and which of its items were ever begun and how often each was resolved."""

    state: Job
    isolate: bool
    limits: Limits
    dropped: bool = False  # its results are not wanted any more
    begun: set[int] = field(default_factory=set)
    resolved: dict[int, str] = field(default_factory=dict)
    finished: bool = False
    attempts: dict[int, int] = field(default_factory=dict)  # by item: how often it has begun
    not_before: dict[int, float] = field(default_factory=dict)  # by item: when it may begin again

    def fail(self, items: range, now: float) -> None:
        """These may begin again."""
        limits = self.limits
        for item in items:
            self.begun.discard(item)
            failures = max(1, self.attempts.get(item, 0))
            self.not_before[item] = now + limits.backoff * 2.0 ** (failures - 1)


@dataclass
class Answer:
    """What a worker has written."""

    kind: str
    seq: int
    count: int
    final: bool
    failed: set[int] = field(default_factory=set)  # items


@dataclass
class Process:
    """A worker process: its pipes, its status page, and where it is."""

    id: int
    launched: float
    ready: bool = False
    retired: bool = False
    pipe: list[Packet] = field(default_factory=list)  # written, unread
    outbox: list[Answer] = field(default_factory=list)  # written by the worker, unread by the pool
    running: Packet | None = None
    begun: int = 0  # page
    item: int | None = None  # page
    width: int = 1  # page
    place: int = 0  # first item that is not done
    written: int = 0  # first item whose result is not in the outbox
    unit: int = 1
    chunks: int = 0
    revoked: int = 0  # page
    asked: tuple[int, int] | None = None  # page: packet, and the item before which it is to stop in it
    since: float = 0.0  # page
    failed: set[int] = field(default_factory=set)  # items, not written yet: each failed, and its chunk with it
    asked_before: tuple[int, int] | None = None  # what was there before: a worker that has just looked has seen this

    def stop(self, *, blind: bool = False) -> int:
        """Where it stops in the packet that it runs."""
        assert self.running is not None
        end = self.ends[self.running.seq]
        asked = self.asked_before if blind else self.asked
        return min(end, asked[1]) if asked and asked[0] == self.running.seq else end

    ends: dict[int, int] = field(default_factory=dict)  # by seq: where the packet ended when it was written

    @property
    def between(self) -> bool:
        """Whether it runs no item at this moment."""
        return self.item is None or not self.width or self.place > self.item

    @property
    def loading(self) -> bool:
        """Whether it unpickles the items of a packet, all that are in it."""
        return self.running is not None and not self.width

    @property
    def can_go_on(self) -> bool:
        """Whether there are more items in the packet that it runs; it looks only then whether it may begin them."""
        return self.running is not None and self.between and self.place < self.ends[self.running.seq]


class SchedulerMachine(RuleBasedStateMachine):
    scheduler: Scheduler

    @initialize(
        processes=st.sampled_from([1, 2, 2, 3]),
        limit=st.sampled_from([None, None, None, 1, 2, 4]),
        window=st.sampled_from([1, 2, 2, 3]),
        most=st.sampled_from([1, 3, 65_536]),
        started=st.sampled_from([True, True, True, False]),
        adaptive=st.booleans(),
        isolate=st.booleans(),
        limits=st.sampled_from(LIMITS),
        start_timeout=st.sampled_from([0.0, 2.0]),
        cores=st.sampled_from([0, 1, 2]),
    )
    def open(
        self,
        processes: int,
        limit: int | None,
        window: int,
        most: int,
        started: bool,
        adaptive: bool,
        isolate: bool,
        limits: Limits,
        start_timeout: float,
        cores: int,
    ) -> None:
        self.scheduler = Scheduler(processes, limit, window, most, start_timeout, cores=cores)
        self.limit = limit
        self.works: dict[int, Work] = {}
        self.processes: dict[int, Process] = {}
        self.to_start: list[int] = []
        self.to_encode: list[Packet] = []
        self.retiring: set[int] = set()
        self.to_cut: list[int] = []  # workers
        self.cuts: list[tuple[int, int, int]] = []  # worker, packet, stop: asked, and not settled yet
        self.to_expel: list[tuple[int, int, int, float]] = []  # worker, packet, item, since
        self.now = 0.0
        self.closed = self.terminated = False
        self.scheduler.open()
        self.take()
        if started:
            for number in range(processes):
                self.start(0, False)
                self.become_ready(number)
            self.add_job(60, 2, adaptive, False, isolate, limits)

    @invariant()
    def the_invariants_hold(self) -> None:
        if hasattr(self, "scheduler"):
            self.scheduler.check()

    # -- jobs ----------------------------------------------------------------------------------------------------------

    @precondition(lambda self: not self.closed and len(self.works) < JOBS)
    @rule(
        count=st.integers(0, 60),
        grain=st.integers(1, 4),
        adaptive=st.booleans(),
        lazy=st.booleans(),
        isolate=st.booleans(),
        limits=st.sampled_from(LIMITS),
    )
    def add_job(self, count: int, grain: int, adaptive: bool, lazy: bool, isolate: bool, limits: Limits) -> None:
        number = len(self.works) + 1
        state = self.scheduler.add_job(
            number, grain=1 if adaptive else grain, adaptive=adaptive, lazy=lazy, limits=limits
        )
        self.works[number] = Work(state, isolate or lazy, limits)
        if lazy:
            count -= count % state.grain
        if count:
            self.scheduler.add_items(state, count)
        if not lazy:
            self.scheduler.close_job(state)

    @precondition(lambda self: self.open_works())
    @rule(pick=numbers, chunks=st.integers(1, 5))
    def add_items(self, pick: int, chunks: int) -> None:
        work = self.pick(self.open_works(), pick)
        self.scheduler.add_items(work.state, chunks * work.state.grain)

    @precondition(lambda self: self.open_works())
    @rule(pick=numbers, rest=st.integers(0, 3))
    def close_job(self, pick: int, rest: int) -> None:
        work = self.pick(self.open_works(), pick)
        if rest:
            self.scheduler.add_items(work.state, min(rest, work.state.grain))  # the last chunk may be short
        self.scheduler.close_job(work.state)

    @precondition(lambda self: self.works and not self.terminated)
    @rule(pick=numbers, start=st.integers(0, 20), count=st.integers(1, 20))
    def cancel(self, pick: int, start: int, count: int) -> None:
        work = self.pick(list(self.works.values()), pick)
        state = work.state
        stop = start + count
        if state.grain > 1:
            start, stop = 0, state.added
        waiting = self.waiting(state, start, stop)
        for item in waiting:
            self.resolve(work, item, "cancelled")
        assert self.scheduler.cancel(state, start, stop) == len(waiting)
        assert not self.waiting(state, start, stop)

    @precondition(lambda self: self.works and not self.terminated)
    @rule(pick=numbers, end=st.booleans(), sure=st.integers(0, 3))
    def drop(self, pick: int, end: bool, sure: int) -> None:
        work = self.pick(list(self.works.values()), pick)
        if sure and len(self.works) < JOBS:  # it ends much: let most runs get on
            return
        for item in self.waiting(work.state, 0, work.state.added):
            self.resolve(work, item, "cancelled")
        for packet in self.to_encode:
            worker = self.scheduler.workers.get(packet.worker)
            if packet.job is work.state and worker is not None and packet.seq in worker.inflight:
                for item in range(packet.start, packet.stop):
                    self.resolve(work, item, "cancelled")
        work.dropped = True
        self.scheduler.drop(work.state, end=end)

    @precondition(lambda self: self.to_encode and not self.terminated)
    @rule(pick=numbers, place=numbers)
    def cancel_on_its_way(self, pick: int, place: int) -> None:
        packet = self.pick(self.to_encode, pick)
        worker = self.scheduler.workers.get(packet.worker)
        if packet.job.grain == 1 and worker is not None and packet.seq in worker.inflight:
            item = packet.start + place % (packet.stop - packet.start)
            self.resolve(self.works[packet.job.id], item, "cancelled")
            assert self.scheduler.withdraw(packet.job, item) == 1

    @precondition(lambda self: not self.closed and len(self.works) > 1)
    @rule()
    def close(self) -> None:
        self.closed = True
        self.scheduler.close()

    @precondition(lambda self: not self.terminated and len(self.works) > 1)
    @rule(sure=st.integers(0, 3))
    def terminate(self, sure: int) -> None:
        if sure:  # it ends the run: let most runs get on
            return
        self.closed = self.terminated = True
        for job, start, stop in self.scheduler.terminate():
            assert start < stop  # a job of which nothing is left may be over, and forgotten
            for item in range(start, stop):
                self.resolve(self.works[job.id], item, "terminated")

    # -- commands: in any order, at any time ---------------------------------------------------------------------------

    @rule()
    def take(self) -> None:
        for command in self.scheduler.take():
            self.note(command)

    def note(self, command: Command) -> None:
        if command[0] == "start":
            self.to_start.append(command[1])
        elif command[0] == "encode":
            assert command[1].start < command[1].stop
            self.to_encode.append(command[1])
        elif command[0] == "take_back":
            self.take_back(*command[1:])
        elif command[0] == "cut":
            self.to_cut.append(command[1])
        elif command[0] == "expel":
            self.prepare_to_expel(*command[1:])
        elif command[0] == "retire":
            assert command[1] not in self.retiring, "retired twice"
            self.retiring.add(command[1])
            if command[1] in self.processes:
                self.processes[command[1]].retired = True
        elif command[0] == "finished":
            work = self.works[command[1]]
            assert work.state.closed  # M4
            assert not work.finished  # M4
            assert work.dropped or len(work.resolved) == work.state.added  # M4
            work.finished = True
        else:
            reason, number, start, stop = command[:4]
            for item in range(start, stop):
                self.resolve(self.works[number], item, reason)

    def take_back(self, number: int, begun: int = 0) -> None:
        process = self.processes.get(number)
        packet = None
        if process and process.pipe and not process.retired and begun in (0, process.begun):
            packet = process.pipe.pop(0)
        self.scheduler.taken_back(number, packet.seq if packet else None)

    @precondition(lambda self: self.where(self.holds_several))
    @rule(pick=numbers)
    def take_back_to_cancel(self, pick: int) -> None:
        """A future's `cancel` takes packets back without being told to, for an item behind a worker's first packet."""
        self.take_back(self.pick(self.where(self.holds_several), pick).id)

    def holds_several(self, process: Process) -> bool:
        return bool(process.pipe) and not self.terminated and len(self.scheduler.workers[process.id].inflight) > 1

    @precondition(lambda self: self.to_start)
    @rule(pick=numbers, fails=st.booleans())
    def start(self, pick: int, fails: bool) -> None:
        number = self.to_start.pop(pick % len(self.to_start))
        if fails:
            self.scheduler.worker_gone(number, cause=CAUSE)
        else:
            self.processes[number] = Process(number, self.now, retired=number in self.retiring)
        self.take()

    @precondition(lambda self: self.to_encode)
    @rule(pick=numbers, refused=st.sampled_from([False, False, False, True]))
    def encode(self, pick: int, refused: bool) -> None:
        packet = self.to_encode.pop(pick % len(self.to_encode))
        if refused:
            self.refuse(packet)
        elif self.scheduler.encoded(packet):
            process = self.processes[packet.worker]
            process.pipe.append(packet)
            process.ends[packet.seq] = packet.stop
        self.take()

    def refuse(self, packet: Packet) -> None:
        if packet.stop - packet.start > packet.job.grain:
            self.scheduler.split(packet)
        elif self.scheduler.encoded(packet):
            for item in range(packet.start, packet.stop):
                self.resolve(self.works[packet.job.id], item, "refused")
            self.scheduler.unencodable(packet)

    @precondition(lambda self: self.to_encode)
    @rule(pick=numbers)
    def find_the_pipe_full(self, pick: int) -> None:
        packet = self.pick(self.to_encode, pick)
        process = self.processes.get(packet.worker)
        if process is not None and process.pipe:
            self.to_encode.remove(packet)
            if self.scheduler.encoded(packet):
                self.scheduler.unsent(packet)
        self.take()

    # -- cutting short -------------------------------------------------------------------------------------------------

    @rule()
    def tick(self) -> None:
        self.scheduler.tick()

    @precondition(lambda self: self.to_cut)
    @rule(pick=numbers)
    def ask_to_stop(self, pick: int) -> None:
        process = self.processes.get(self.to_cut.pop(pick % len(self.to_cut)))
        if process is not None:
            self.ask(process)

    @precondition(lambda self: self.where(lambda p: p.running and p.item is not None))
    @rule(pick=numbers, meanwhile=st.lists(numbers, max_size=8))
    def cut_short(self, pick: int, meanwhile: list[int]) -> None:
        """All of it at once, as it is rare else; nothing depends on the scheduler's having asked for it."""
        self.ask(self.pick(self.where(lambda p: p.running and p.item is not None), pick))
        self.go_on(meanwhile)
        if self.cuts:
            self.settle_a_cut(pick, pick % 3 > 0)

    def ask(self, process: Process) -> None:
        number = process.id
        if process.running is None or process.item is None or process.loading:
            return
        if any(number == cut[0] for cut in self.cuts):
            return
        stop = process.item + process.width
        asked_before = process.asked
        if asked_before is None or asked_before[0] != process.begun or asked_before[1] > stop:
            process.asked, process.asked_before = (process.begun, stop), asked_before
        self.cuts.append((number, process.begun, stop))

    @precondition(lambda self: self.cuts)
    @rule(pick=numbers, looks=st.booleans())
    def settle_a_cut(self, pick: int, looks: bool) -> None:
        """The pause is over; the pool may find results in the log first."""
        number, seq, stop = self.cuts.pop(pick % len(self.cuts))
        process = self.processes.get(number)
        packet = process.running if process is not None else None
        if process is None or packet is None or self.terminated:
            return
        before = packet.seq == seq and process.item is not None and process.item + process.width <= stop
        if looks and self.logs(process) and not process.outbox and process.place > process.written:
            self.write(process, False)
            self.read_one(process, 0.0)
        if before:
            self.scheduler.cut_off(number, seq, stop)

    @precondition(lambda self: self.where(lambda p: p.pipe))
    @rule(pick=numbers, meanwhile=st.lists(numbers, max_size=4))
    def withdraw(self, pick: int, meanwhile: list[int]) -> None:
        """What an engine does that can't take back: window 2, so one packet may be unread."""
        process = self.pick(self.where(lambda p: p.pipe), pick)
        if self.scheduler.window > 2 or any(process.id == cut[0] for cut in self.cuts):
            return
        packet, begun = process.pipe[-1], process.begun
        if process.revoked in self.scheduler.workers[process.id].inflight and process.revoked != packet.seq:
            return  # there is one word for it
        process.revoked = packet.seq
        self.go_on(meanwhile)
        if process.begun == begun and packet in process.pipe and process.id in self.processes and not self.terminated:
            self.scheduler.cut_off(process.id, packet.seq, packet.start)

    # -- limits and further attempts -----------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.1, 0.4, 1.0, 3.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        running = {p.id: (p.begun, p.item, p.since) for p in self.where(lambda p: p.running and p.item is not None)}
        running |= {p.id: (0, 0, p.launched) for p in self.where(lambda p: not p.ready)}
        self.scheduler.overdue(self.now, running)
        self.release()

    def release(self) -> None:
        left = self.scheduler.release(self.now)
        assert (left is None) == (not self.scheduler.delayed)
        assert left is None or left > 0.0

    @precondition(lambda self: self.where(lambda p: p.running and not p.loading) and not self.terminated)
    @rule(pick=numbers)
    def kill(self, pick: int) -> None:
        process = self.pick(self.where(lambda p: p.running and not p.loading), pick)
        worker = self.scheduler.workers[process.id]
        self.scheduler.condemn(worker, worker.inflight[process.begun], process.item, process.since, KILLED)

    def prepare_to_expel(self, number: int, seq: int, item: int, since: float) -> None:
        """What has not been read is taken back, and what is behind the item is not to be begun."""
        process = self.processes.get(number)
        if process is None:
            return
        while process.pipe and not process.retired and not self.terminated:
            self.take_back(number)
        if not process.ready and seq == 0:
            self.to_expel.append((number, seq, item, since))
        if process.running is not None and (process.begun, process.item, process.since) == (seq, item, since):
            self.ask(process)
            self.to_expel.append((number, seq, item, since))

    @precondition(lambda self: self.to_expel)
    @rule(pick=numbers)
    def expel(self, pick: int) -> None:
        """The pause is over: it is ended, if it still runs that item."""
        number, seq, item, since = self.to_expel.pop(pick % len(self.to_expel))
        process = self.processes.get(number)
        if process is None:
            return
        if process.running is not None and (process.begun, process.item, process.since) == (seq, item, since):
            self.end(process, expelled=True)
        elif not process.ready and seq == 0:
            assert self.now >= process.launched + self.scheduler.start_timeout  # M7
            self.end(process)

    def wait_for_the_next(self, _pick: int) -> None:
        self.now = max(self.now, min(due for due, *_ in self.scheduler.delayed.values()))
        self.release()

    # -- workers -------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.where(lambda p: not p.ready))
    @rule(pick=numbers)
    def become_ready(self, pick: int) -> None:
        process = self.pick(self.where(lambda p: not p.ready), pick)
        process.ready = True
        self.scheduler.worker_ready(process.id)

    @precondition(lambda self: self.where(lambda p: p.ready and p.running is None and p.pipe))
    @rule(pick=numbers, unit=st.integers(1, 3))
    def begin_a_packet(self, pick: int, unit: int) -> None:
        process = self.pick(self.where(lambda p: p.ready and p.running is None and p.pipe), pick)
        process.running = packet = process.pipe.pop(0)
        process.begun, process.item, process.width, process.since = packet.seq, packet.start, 0, self.now
        process.place = process.written = packet.start
        process.unit = unit if packet.job.adaptive else packet.job.grain
        if process.revoked == packet.seq:
            process.outbox.append(Answer("answer", packet.seq, 0, True))
            process.running = None

    @precondition(lambda self: self.where(lambda p: p.can_go_on))
    @rule(pick=numbers, blind=st.booleans(), asked=st.booleans())
    def begin_an_item(self, pick: int, blind: bool = False, asked: bool = False) -> None:
        """`blind`: it was asked to stop, but looked just before that; then the pool sees what it has begun.
        `asked`: it is asked to stop when it has said what it is about to run, and has not looked yet how far it may.
        """
        self.begin_of(self.pick(self.where(lambda p: p.can_go_on), pick), blind=blind, asked=asked)

    @precondition(lambda self: self.where(lambda p: p.can_go_on and p.place >= p.stop()))
    @rule(pick=numbers)
    def ask_amid_the_last_look(self, pick: int) -> None:
        """It has done what it was to do, and says what it would run next, before it finds that it may not."""
        self.begin_of(self.pick(self.where(lambda p: p.can_go_on and p.place >= p.stop()), pick), asked=True)

    def begin_of(self, process: Process, *, blind: bool = False, asked: bool = False) -> None:
        packet = process.running
        assert packet is not None
        open_cut = any(process.id == asked[0] for asked in [*self.cuts, *self.to_expel])
        end = process.ends[packet.seq]
        process.item, process.width = process.place, min(process.unit, end - process.place)
        if asked:
            self.ask(process)
        stop = process.stop(blind=blind and open_cut)
        if stop <= process.place:
            process.item = None
            self.answer(process, True)
            return
        process.width = min(process.width, stop - process.place)
        work = self.works[packet.job.id]
        items = set(range(process.item, process.item + process.width))
        assert not items & work.begun, "an item begins for the second time"  # M1
        assert self.terminated or not items & work.resolved.keys(), "an item begins that is resolved"  # M1
        work.begun |= items
        process.since = self.now
        for item in items:
            times = work.attempts[item] = work.attempts.get(item, 0) + 1
            assert times <= work.limits.retries + 1, "an item begins too often"  # M6
            assert self.now >= work.not_before.get(item, 0.0), "an item begins again too early"  # M6
        process.chunks += -(-process.width // packet.job.grain)
        assert self.limit is None or process.chunks <= self.limit  # M3

    @precondition(lambda self: self.where(lambda p: p.running and not p.between))
    @rule(pick=numbers, failing=st.integers(0, 3), again=st.booleans())
    def end_an_item(self, pick: int, failing: int, again: bool = False) -> None:
        process = self.pick(self.where(lambda p: p.running and not p.between), pick)
        packet = process.running
        done = process.width
        work = self.works[packet.job.id]
        if failing < done:
            failed = process.item + failing
            if again and packet.job.limits.retries:
                process.failed.add(failed)
            behind = set(range(failed + 1, process.item + process.width))
            if packet.job.adaptive:  # what stands behind it in the unit begins later
                done = failing + 1
                process.chunks -= process.width - done
            if packet.job.adaptive or failed in process.failed:  # else the chunk fails as a whole, once and for all
                work.begun -= behind
                for item in behind:
                    work.attempts[item] -= 1
        process.place = process.item + done

    @precondition(lambda self: self.where(lambda p: p.running and p.between))
    @rule(pick=numbers, final=st.booleans())
    def write_an_answer(self, pick: int, final: bool) -> None:
        """The rest of a final answer, if any, is handed back."""
        self.answer(self.pick(self.where(lambda p: p.running and p.between), pick), final)

    def answer(self, process: Process, final: bool) -> None:
        final = (final and not process.loading) or process.place >= process.stop()
        if not final and process.written == process.place:
            return
        self.write(process, final)
        if final:
            process.running = process.item = None

    @precondition(lambda self: self.where(lambda p: p.loading))
    @rule(pick=numbers)
    def find_that_it_does_not_unpickle(self, pick: int) -> None:
        process = self.pick(self.where(lambda p: p.loading), pick)
        packet = process.running
        if process.ends[packet.seq] - packet.start > packet.job.grain:
            process.outbox.append(Answer("split", packet.seq, 0, True))
        else:
            self.works[packet.job.id].begun |= set(range(packet.start, packet.stop))
            process.outbox.append(Answer("answer", packet.seq, packet.stop - packet.start, True))
        process.running = None

    @precondition(lambda self: self.where(lambda p: p.outbox))
    @rule(pick=numbers, seconds=st.sampled_from([0.0, 1e-6, 1e-3, 1.0]))
    def read(self, pick: int, seconds: float) -> None:
        self.read_one(self.pick(self.where(lambda p: p.outbox), pick), seconds)

    @precondition(lambda self: hasattr(self, "scheduler"))
    @rule(processes=st.integers(0, 4))
    def resize(self, processes: int) -> None:
        """A cluster grows and shrinks."""
        self.scheduler.resize(processes)

    @precondition(lambda self: self.where(lambda p: p.running or p.pipe) and not self.terminated)
    @rule(pick=numbers, place=numbers)
    def lose_a_packet(self, pick: int, place: int) -> None:
        """Whoever had it is lost, with what it had not told; the worker is a place of a cluster, and stays."""
        process = self.pick(self.where(lambda p: p.running or p.pipe), pick)
        packet = self.pick([p for p in (process.running, *process.pipe) if p is not None], place)
        if packet is process.running:
            process.running = process.item = None
            process.failed = set()
        else:
            process.pipe.remove(packet)
        process.outbox = [answer for answer in process.outbox if answer.seq != packet.seq]
        work, lost = self.works[packet.job.id], range(packet.done, packet.stop)
        self.begins_again(work, packet, lost, DIED)
        self.note_what_is_new()
        self.scheduler.packet_lost(process.id, packet.seq, CAUSE, self.now)
        for command in self.note_what_is_new():
            if command[0] == "lost":
                assert command[1] == packet.job.id  # M2
                assert set(range(command[2], command[3])) <= set(lost), (command, lost)  # M2

    def note_what_is_new(self) -> list[Command]:
        commands = self.scheduler.take()
        for command in commands:
            self.note(command)
        return commands

    @precondition(lambda self: self.processes)
    @rule(pick=numbers)
    def die(self, pick: int) -> None:
        running = self.where(lambda p: p.running)
        self.end(self.pick(running if running and pick % 4 else list(self.processes.values()), pick))

    @rule(picks=st.lists(numbers, min_size=5, max_size=30))
    def go_on(self, picks: list[int]) -> None:
        """Nothing special happens for a while: runs get far only if most of their steps are of this kind."""
        for pick in picks:
            self.take()
            steps = self.possible_steps()
            if steps:
                self.pick(steps, pick)(pick // 100)
            self.scheduler.check()

    # -- what the rules are made of ------------------------------------------------------------------------------------

    @staticmethod
    def write(process: Process, final: bool) -> None:
        """What has been done since the last time goes into the pipe, or into the log."""
        count = process.place - process.written
        process.outbox.append(Answer("answer", process.begun, count, final, process.failed))
        process.written, process.failed = process.place, set()

    def read_one(self, process: Process, seconds: float) -> None:
        answer = process.outbox.pop(0)
        if self.terminated:
            return
        packet = self.scheduler.workers[process.id].inflight[answer.seq]
        if answer.kind == "split":
            self.scheduler.split(packet)
            return
        work, job = self.works[packet.job.id], packet.job
        again: list[tuple[int, int]] = []
        stop = packet.done + answer.count
        for failed in sorted(answer.failed):
            if self.scheduler.may_begin_again(job, failed, failed + 1):
                end = min(stop, failed + job.grain - (failed - packet.start) % job.grain)
                again.append((failed, end))
                work.fail(range(failed, end), self.now)
        for item in range(packet.done, stop):
            if not any(first <= item < end for first, end in again):
                self.resolve(work, item, "answered")
        self.scheduler.answered(process.id, answer.seq, answer.count, seconds, answer.final, again, self.now)

    def end(self, process: Process, *, expelled: bool = False) -> None:
        """The process is dead: read what it wrote, then its log, then report it."""
        del self.processes[process.id]
        while process.outbox:
            self.read_one(process, 1e-3)
        packet = process.running
        may_be_lost = range(0)
        if packet is not None and not self.terminated:
            work = self.works[packet.job.id]
            if self.logs(process) and process.place > process.written:
                self.write(process, False)
                self.read_one(process, 0.0)
            end = packet.stop if process.loading else min(packet.stop, process.item + process.width)
            may_be_lost = range(packet.done, end)
            condemned = self.scheduler.workers[process.id].condemned
            why = condemned[2] if condemned and condemned[:2] == (packet, process.item) else DIED
            if expelled:
                assert why != DIED or process.between  # M7: it came to the item's end just before
                assert why != OVERDUE or self.now >= process.since + packet.job.limits.timeout  # M7
                if self.logs(process):
                    may_be_lost = range(max(packet.done, process.item), end)  # M7
            if process.loading and end - packet.done > packet.job.grain:
                may_be_lost = range(0)  # nobody knows which of them it was
            else:
                self.begins_again(work, packet, may_be_lost, why)
        self.scheduler.worker_gone(process.id, process.begun, process.item, process.width, CAUSE, self.now)
        for command in self.scheduler.take():
            if command[0] == "lost":
                assert command[5] == why  # M7
                assert packet is not None  # M2
                assert command[1] == packet.job.id  # M2
                assert set(range(command[2], command[3])) <= set(may_be_lost), (command, may_be_lost)  # M2
            self.note(command)

    def begins_again(self, work: Work, packet: Packet, lost: range, why: str) -> None:
        """Note which of what is lost with a worker has another attempt."""
        job, at = packet.job, lost.start
        while why in job.limits.outlives and at < lost.stop:
            end = min(lost.stop, at + job.grain - (at - packet.start) % job.grain)
            if not self.scheduler.may_begin_again(job, at, end):
                break
            work.fail(range(at, end), self.now)
            at = end

    def logs(self, process: Process) -> bool:
        job = process.running.job
        return self.works[job.id].isolate or process.unit == 1 or not job.adaptive

    def resolve(self, work: Work, item: int, how: str) -> None:
        assert item not in work.resolved, (how, item, work.resolved[item])  # M1
        assert 0 <= item < work.state.added
        if how in ("cancelled", "unstartable", "refused"):
            assert item not in work.begun, how
        work.resolved[item] = how

    def waiting(self, state: Job, start: int, stop: int) -> list[int]:
        spans = [(a, b) for job, a, b, *_ in self.scheduler.ready if job == state.id]
        delayed = [(a, b) for (job, a), (_, b, _) in self.scheduler.delayed.items() if job == state.id]
        spans += [(a, b) for a, b in delayed if start <= a and b <= stop]
        return [item for a, b in spans for item in range(max(a, start), min(b, stop))]

    def open_works(self) -> list[Work]:
        if self.terminated:
            return []
        return [work for work in self.works.values() if not work.state.closed]

    def where(self, fact: object) -> list[Process]:
        return [process for process in self.processes.values() if fact(process)]  # type: ignore[operator]

    @staticmethod
    def pick(among: list, number: int):  # type: ignore[no-untyped-def, type-arg]
        return among[number % len(among)]

    # -- the end -------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        for work in self.open_works():
            self.scheduler.close_job(work.state)
        if not self.closed:
            self.close()
        if not self.scheduler.processes:
            self.resize(1)  # else what waits would do so for ever
        for _ in range(STEPS):
            self.scheduler.check()
            self.take()
            steps = self.possible_steps()
            if not steps:
                break
            steps[-1](0)
        for work in self.works.values():
            assert work.dropped or len(work.resolved) == work.state.added, work  # M5
            assert work.finished or self.terminated, work  # M5
        assert not self.scheduler.workers  # M5
        assert not self.scheduler.busy  # M5

    def possible_steps(self) -> list[Callable[[int], object]]:
        """Return what an engine in good health can do now."""
        found: list[Callable[[int], object]] = []
        if self.to_start:
            found.append(lambda pick: self.start(pick, False))
        if self.to_encode:
            found.append(lambda pick: self.encode(pick, False))
        if self.to_cut:
            found.append(self.ask_to_stop)
        if self.cuts:
            found.append(lambda pick: self.settle_a_cut(pick, pick % 2 > 0))
        if self.to_expel:
            found.append(self.expel)
        if self.scheduler.delayed:
            found.append(self.wait_for_the_next)
        steps: list[tuple[Callable[[Process], object], Callable[[int], object]]] = [
            (lambda p: p.outbox, lambda pick: self.read(pick, (1e-5, 1e-2)[pick % 2])),
            (lambda p: not p.ready, self.become_ready),
            (lambda p: p.ready and not p.running and p.pipe, lambda pick: self.begin_a_packet(pick, 1 + pick % 3)),
            (lambda p: p.can_go_on, self.begin_an_item),
            (lambda p: p.running and not p.between, lambda pick: self.end_an_item(pick, 3)),
            (self.has_results, lambda pick: self.answer(self.pick(self.where(self.has_results), pick), False)),
            (self.has_all, lambda pick: self.answer(self.pick(self.where(self.has_all), pick), True)),
            (self.may_end, lambda pick: self.end(self.pick(self.where(self.may_end), pick))),
        ]
        return found + [step for fact, step in steps if self.where(fact)]

    @staticmethod
    def has_results(process: Process) -> bool:
        return process.running is not None and process.between and process.place > process.written

    @staticmethod
    def has_all(process: Process) -> bool:
        return process.running is not None and process.between and process.place >= process.stop()

    def may_end(self, process: Process) -> bool:
        return self.terminated or (process.retired and process.ready and not process.running and not process.pipe)


# The same walks in every CI run, so that it fails for what was changed; other ones each time a developer runs it.
SchedulerMachine.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=60,
    deadline=None,
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=list(HealthCheck),
)
TestScheduler = SchedulerMachine.TestCase
