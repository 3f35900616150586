"""The scheduler: every decision of a pool, as a pure state machine.

It is told what happened (its methods are the events) and answers with what is to be done (`commands`, drained by
`take`). It knows jobs as numbers of items, never the items; workers as numbers, never processes. Whoever calls it
holds the pool's lock.

    item     WAITING -> ASSIGNED -> RESOLVED      a span in `ready`; then in one packet of one worker; then counted off
             ASSIGNED -> WAITING                  only if it provably never started: unread, split, returned, cut off
             ASSIGNED -> DELAYED -> WAITING       it failed, or its worker died, and its job allows another attempt
    packet   ENCODING -> SENT -> gone             being pickled outside the lock; written; answered, taken back or lost
             SENT -> CUT -> gone                  what had not begun of it waits again; answered or lost
    worker   STARTING -> READY -> RETIRING -> gone     the process was asked for; answered; its task pipe is closed
             any -> gone                          its sentinel fired and its last answers were read

S1  An item is in exactly one place: waiting in one span, delayed, in one packet, or resolved.      (check_s1)
S2  A worker holds at most `window` packets, and is in the slack level of its number of packets.    (check_s2)
S3  Never more than `processes` workers are alive, the retiring ones excepted.                      (check_s3)
S4  While an item waits, `processes` is not 0 and no failure is being reported, a worker is there or is being started.
    (check_s4)
S5  A worker never begins more chunks than its allowance.                                           (check_s5)
S6  What is counted, as `divisible`, is what a look at all workers and packets would give.          (check_s6)
S7  No item begins more often than its job allows: once, and `retries` times more.                  (check_s7)
S8  No worker is idle while an item waits, unless the pool is crowded: such items are quick, as many workers as can run
    at once are at work, and all of those make progress.                                            (check_s8)
S9  Workers that are not retiring have slots of their own, from 0 to `processes` - 1.               (check_s9)
S10 A worker's packets were handed out for the first time in the order in which it holds them. So a task that waits for
    one which was submitted before it is never what keeps that from beginning.                      (check_s10)

Time comes in as data: `now` is whatever clock the caller has, in seconds.

What happens is noted as plain tuples: a kind, `now` as it was set last, and numbers. The last ones are `history`, from
which the errors of tasks get their story; whoever wants all sets `happened` to a list. That is paid once a packet.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from itertools import pairwise

from procflow.scheduling.chunks import MOST, STRETCH, blend, fair_share, fitting, read_ahead, stretched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Literal

    Cause = tuple[int, int | None, str]  # pid, exit code, and why in words where they are known
    Command = (
        tuple[Literal["start"], int, int]  # start this worker in this slot
        | tuple[Literal["encode"], "Packet"]  # pickle the packet's items, then say `encoded`
        | tuple[
            Literal["take_back"], int, int
        ]  # take this worker's oldest unread packet, if it has begun that seq (0: in any case); then say `taken_back`
        | tuple[Literal["cut"], int]  # have this worker begin nothing behind what it runs, then say `cut_off`
        | tuple[Literal["retire"], int]  # close this worker's task pipe: it ends when it has done what it holds
        | tuple[Literal["expel"], int, int, int, float]  # end this worker, if it still runs this seq, item, since then
        | tuple[Literal["lost"], int, int, int, Cause, str]  # job, start, stop, cause, why: begun by a worker that died
        | tuple[
            Literal["unstartable"], int, int, int, int, Cause, str
        ]  # job, start, stop, attempts, cause, why: no worker can start
        | tuple[Literal["finished"], int]  # every item of this job is resolved, and there will be no more
    )

__all__ = ["DIED", "KILLED", "OVERDUE", "UNLIMITED", "Job", "Limits", "Packet", "Scheduler", "Worker"]

STARTING, READY, RETIRING = "starting", "ready", "retiring"
ENCODING, SENT, CUT = "encoding", "sent", "cut"

DIED, OVERDUE, KILLED = "died", "overdue", "killed"  # why what a worker had begun is lost

MOST_DOUBLINGS = 60  # of a backoff: 1 ms has become longer than anybody lives
QUICK = 100e-6  # seconds: for less, another worker is not woken while the processors have enough to do
HISTORY = 1000  # transitions that are remembered, for the story of a task that fails
IN_VAIN_MOST = 32  # workers in a row that may die unpickling a job's items before these are lost together
START_ATTEMPTS = 3  # workers in a row that failed before they were ready; then what waits fails


class Limits:
    """What the caller allows each item of a job."""

    __slots__ = ("backoff", "outlives", "retries", "timeout")

    def __init__(
        self, timeout: float = 0.0, retries: int = 0, backoff: float = 0.0, outlives: frozenset[str] = frozenset()
    ) -> None:
        self.timeout = timeout  # seconds that it may run; 0 for no limit
        self.retries = retries  # how often it may begin again after it failed
        self.backoff = backoff  # seconds before it does; twice as long each time
        self.outlives = outlives  # DIED, OVERDUE: a loss for which it may begin again


UNLIMITED = Limits()
NO_TIME = Limits(timeout=10e-3)  # what runs is overdue at the next look, or at the one after


class Job:
    """One call's items, as numbers."""

    __slots__ = (
        "adaptive",
        "added",
        "attempts",
        "closed",
        "dropped",
        "grain",
        "id",
        "in_vain",
        "lazy",
        "limits",
        "most",
        "packet",
        "resolved",
        "seconds",
        "waiting",
    )

    def __init__(self, job: int, grain: int, adaptive: bool, lazy: bool, most: int, limits: Limits = UNLIMITED) -> None:
        self.id = job
        self.grain = grain  # items in a chunk
        self.adaptive = adaptive  # no chunksize was given
        self.lazy = lazy  # what waits is not all there is: the input is read as it is needed
        self.most = most  # chunks in a packet
        self.added = 0  # items that were handed to the scheduler
        self.waiting = 0  # of these: in `ready`
        self.resolved = 0  # of these: done with
        self.closed = False  # no item will be added
        self.dropped = False  # nobody wants its results
        self.seconds = -1.0  # measured time per chunk
        self.packet = 1  # chunks in the last packet
        self.limits = limits
        self.in_vain = 0  # workers that died unpickling its items since the last of them was resolved
        self.attempts: dict[int, int] = {}  # how often an item that is not resolved has begun in vain


class Packet:
    """What one write gives to one worker: items `start` to `stop` of a job; those before `done` are answered."""

    __slots__ = ("attempt", "divisible", "done", "job", "order", "seconds", "seq", "start", "state", "stop", "worker")

    def __init__(self, seq: int, job: Job, start: int, stop: int, worker: int, order: int = 0) -> None:
        self.seq, self.job, self.start, self.stop, self.worker = seq, job, start, stop, worker
        self.attempt = job.attempts.get(start, 0) + 1  # what begins again travels alone
        self.order = order or seq  # lower for what was handed out earlier, also if it was put back since
        self.done = start
        self.seconds = 0.0  # in which the items before `done` ran, as measured
        self.state = ENCODING
        self.divisible = stop - start > job.grain  # more than one chunk, and not cut off yet

    def __repr__(self) -> str:
        return f"<Packet {self.seq} {self.state}: job {self.job.id}[{self.start}:{self.stop}] to worker {self.worker}>"


class Worker:
    """One worker as the scheduler sees it."""

    __slots__ = (
        "allowance",
        "condemned",
        "id",
        "inflight",
        "progress",
        "sealed",
        "seen",
        "slot",
        "seconds",
        "started",
        "state",
        "tasks",
        "window",
    )

    def __init__(self, worker: int, slot: int, allowance: int, window: int) -> None:
        self.id = worker
        self.slot = slot  # its replacement gets the same
        self.state = STARTING
        self.inflight: dict[int, Packet] = {}  # by seq, oldest first
        self.allowance = allowance  # chunks that it may still begin; below zero: no limit
        self.window = window
        self.sealed = 0  # seq of a packet: while it holds that, it gets no other
        self.progress = 0  # grows with each answer
        self.seen = 0  # `progress` at the last tick
        self.started = False  # it was ready once
        self.tasks = 0  # items that it has done
        self.seconds = 0.0  # in which it has, as measured
        # It is ended, should it still run this item (None: should it not be ready yet); and why.
        self.condemned: tuple[Packet | None, int, str] | None = None


class Scheduler:
    """See the module. All methods but `take`, `room` and the checks are events."""

    def __init__(
        self,
        processes: int,
        maxtasksperchild: int | None = None,
        window: int = 2,
        most: int = MOST,
        start_timeout: float = 0.0,
        stretch: float = 1.0,
        *,
        cuts: bool = True,
        cores: int = 0,
    ) -> None:
        """`start_timeout`: seconds until a worker has to be ready; 0: no limit. `stretch`: the least; see `chunks`.
        `cuts`: what is behind an item that runs, in its packet, can be had back. `cores`: how many workers can run at
        once; 0: all.
        """
        self.processes = processes
        self.start_timeout = start_timeout
        self.window = window
        self._cuts = cuts
        self._cores = cores
        self._stuck: set[int] = set()  # workers that hold something, and made no progress between the last two ticks
        self.jobs: dict[int, Job] = {}
        self.workers: dict[int, Worker] = {}
        # [job, start, stop, most, order]: most chunks in one packet, 0 for no limit; of what was put back the order, as
        # of the packet, and 0 of what is new. What was put back waits ahead of what is new, by its order.
        self.ready: deque[list[int]] = deque()
        self.slack: list[dict[int, Worker]] = [{} for _ in range(window + 1)]  # READY workers by packets held
        self.alive = 0  # STARTING and READY
        self.unresolved = 0  # items of all jobs
        self.delayed: dict[tuple[int, int], tuple[float, int, int]] = {}  # by job and start: due, stop, order
        self._due: list[tuple[float, int, int]] = []  # a heap of these: due, job, start; also of some that are no more
        self.divisible = 0  # packets of several chunks that workers hold
        self._timed = 0  # packets that workers hold of jobs with a limit
        self.draining = False  # closed: workers retire when nothing is left to do
        self.stopped = False  # terminated: nothing is started or sent any more
        self._most = most  # chunks in a packet
        self._allowance = -1 if maxtasksperchild is None else maxtasksperchild
        self._stretch = self._least_stretch = stretch  # how much longer packets are than they would have to be
        self._starting = 0  # workers in that state
        self._unready = 0  # workers that were not ready yet, also those that are retiring
        self._failed_starts = 0  # in a row
        self._seq = 0
        self._next_worker = 0
        self.commands: list[Command] = []  # see `take`
        self.happened: list[tuple[object, ...]] | None = None
        self.history: deque[tuple[object, ...]] = deque(maxlen=HISTORY)  # of late, without what was submitted and done
        self.now = 0.0  # for what happens
        self.sizes: dict[int, int] = {}  # items in a packet -> how many packets
        self.deaths: dict[int, int] = {}  # slot -> workers that ended there and were not let go
        self.done = 0  # items that came to an end in a worker, whatever came of them
        self.retried = 0  # items that began again, each time

    def take(self) -> list[Command]:
        """Return the commands that came up since the last call."""
        commands = self.commands
        if commands:
            self.commands = []
        return commands

    def present(self) -> list[tuple[object, ...]]:
        """What somebody has to be told who listens from now on: the workers that are there, or are being started."""
        since = {fact[2]: fact[1] for fact in self.history if fact[0] in ("starting", "started")}
        kinds = {STARTING: "starting", READY: "started"}
        found = [
            (kinds[worker.state], since.get(worker.id, self.now), worker.id, worker.slot)
            for worker in self.workers.values()
            if worker.state in kinds
        ]
        return sorted(found, key=lambda fact: (fact[1], fact[2]))

    def _note(self, kind: str, *facts: object) -> None:
        """This happens now."""
        noted = (kind, self.now, *facts)
        self.history.append(noted)
        if self.happened is not None:
            self.happened.append(noted)

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def add_job(
        self,
        job: int,
        *,
        grain: int = 1,
        adaptive: bool = True,
        lazy: bool = False,
        most: int = MOST,
        limits: Limits = UNLIMITED,
    ) -> Job:
        """A call was accepted; its items follow by `add_items`."""
        self.jobs[job] = made = Job(job, grain, adaptive, lazy, min(most, self._most), limits)
        return made

    def add_items(self, job: Job, count: int) -> None:
        """`count` more items of this job can be sent."""
        start = job.added
        job.added = stop = start + count
        if self.happened is not None:
            self.happened.append(("submitted", self.now, job.id, start, count))
        job.waiting += count
        self.unresolved += count
        if self._failed_starts:
            self._start_again()
        tail = self.ready[-1] if self.ready else None
        if tail is not None and tail[0] == job.id and tail[2] == start and not tail[3]:
            tail[2] = stop
            if not self._failed_starts:  # what waits before these has found no worker, so they would not either
                return
        else:
            self.ready.append([job.id, start, stop, 0, 0])
        self._fill()

    def close_job(self, job: Job) -> None:
        """No more items will come for this job."""
        job.closed = True
        self._finish_if_done(job)

    def cancel(self, job: Job, start: int, stop: int) -> int:
        """Remove those of items `start` to `stop` that wait; return how many. They count as resolved."""
        removed = 0
        kept: deque[list[int]] = deque()
        for span in self.ready:
            if span[0] != job.id or span[2] <= start or span[1] >= stop:
                kept.append(span)
                continue
            low, high = max(span[1], start), min(span[2], stop)
            removed += high - low
            _forget(job, low, high)
            if span[1] < low:
                kept.append([job.id, span[1], low, span[3], span[4]])
            if high < span[2]:
                kept.append([job.id, high, span[2], span[3], span[4]])
        if removed:
            self.ready = kept
            job.waiting -= removed
        late = [(job.id, start)] if stop - start == 1 else [key for key in self.delayed if key[0] == job.id]
        for key in late:
            end = self.delayed[key][1] if key in self.delayed else stop + 1
            if start <= key[1] and end <= stop:
                del self.delayed[key]
                removed += end - key[1]
                _forget(job, key[1], end)
        if removed:
            self._resolve(job, removed)
        return removed

    def drop(self, job: Job, *, end: bool) -> None:
        """Nobody wants this job's results any more: what has not begun never does. `end`: what runs is ended, too."""
        job.dropped = True
        job.attempts.clear()
        self.cancel(job, 0, job.added)
        held = [packet for worker in self.workers.values() for packet in worker.inflight.values() if packet.job is job]
        self._requeue([packet for packet in held if packet.state == ENCODING])
        for packet in held:
            if packet.state != ENCODING:
                self.commands.append(("take_back", packet.worker, 0))
                self._timed += end and not job.limits.timeout
        if end:
            job.limits = NO_TIME
        if not job.closed:
            self.close_job(job)
        self._fill()

    def withdraw(self, job: Job, item: int) -> int:
        """Remove an item from a packet that is still being encoded; return how many were removed: 1 or 0."""
        for worker in self.workers.values():
            for packet in worker.inflight.values():
                if packet.state == ENCODING and packet.job is job and packet.start <= item < packet.stop:
                    self._requeue([packet])
                    removed = self.cancel(job, item, item + 1)
                    self._fill()
                    return removed
        return 0

    def runner(self, job: Job, item: int) -> Worker | None:
        """Return the worker that may have begun the packet with this item, but perhaps not the item."""
        for worker in self.workers.values():
            for packet in worker.inflight.values():
                if packet.divisible and packet.state == SENT and packet.job is job and packet.done < item < packet.stop:
                    return worker
        return None

    def holder(self, job: Job, item: int) -> Worker | None:
        """Return the worker that was sent this item, and may not have read it."""
        for worker in self.workers.values():
            for packet in worker.inflight.values():
                if packet.state == SENT and packet.job is job and packet.start <= item < packet.stop:
                    return worker
        return None

    def room(self, job: Job, held: int, buffersize: int | None) -> int:
        """Return how many more items of a lazy input may be read now; `held` were read and are not consumed yet."""
        workers = max(1, self.processes)  # with none yet, what the first one will take may be read
        packet = fitting(job.seconds, workers, job.packet, adaptive=job.adaptive, stretch=self._stretch)
        return read_ahead(buffersize, workers, self.window, packet, job.grain) - held

    @property
    def hungry(self) -> bool:
        """Whether some worker has room for another packet."""
        return any(self.slack[:-1])

    # -- packets ------------------------------------------------------------------------------------------------------

    def encoded(self, packet: Packet) -> bool:
        """The packet's bytes are ready; True if they are to be written now, False if it was withdrawn meanwhile."""
        worker = self.workers.get(packet.worker)
        if worker is None or packet.seq not in worker.inflight:
            return False
        packet.state = SENT
        self._note("sent", packet.worker, packet.seq, packet.job.id, packet.start, packet.stop - packet.start)
        if not self.ready:
            self._steal()  # a worker may have become idle while this one was encoded for another that is busy
        return True

    def unsent(self, packet: Packet) -> None:
        """The packet could not be written, as its pipe is full: it waits again, and that worker holds fewer."""
        worker = self.workers.get(packet.worker)
        if worker is not None and packet.seq in worker.inflight:
            worker.window = max(1, len(worker.inflight) - 1)
            self._requeue([packet])
            self._fill()

    def split(self, packet: Packet) -> None:
        """The packet's items could not be pickled or unpickled together: each chunk travels alone."""
        worker = self.workers.get(packet.worker)
        if worker is not None and packet.seq in worker.inflight:
            self._requeue([packet], most=1)
            self._fill()

    def unencodable(self, packet: Packet) -> None:
        """The packet holds one chunk, and it does not pickle. The caller has failed its items; none started."""
        worker = self.workers.get(packet.worker)
        if worker is not None and packet.seq in worker.inflight:
            self._drop(worker, packet, unbegun=packet.stop - packet.start)
            self._resolve(packet.job, packet.stop - packet.start)
            self._settle(worker)

    def may_begin_again(self, job: Job, start: int, stop: int) -> bool:
        """Whether these items, of one chunk, may begin once more, now that they have begun in vain."""
        if self.stopped or job.dropped or not job.limits.retries:
            return False
        return all(job.attempts.get(item, 0) < job.limits.retries for item in range(start, stop))

    def answered(
        self,
        worker_id: int,
        seq: int,
        count: int,
        seconds: float,
        final: bool,
        again: Sequence[tuple[int, int]] = (),
        now: float = 0.0,
    ) -> None:
        """`count` more items of a packet are resolved, in `seconds` (0: not measured); `final`: that was the packet.

        What a final answer leaves over was returned unbegun. `again` are spans of the items which are not resolved yet:
        the first of each has failed and `may_begin_again`, the others have not begun.
        """
        if self.stopped:
            return
        worker = self.workers[worker_id]
        packet = worker.inflight[seq]
        job = packet.job
        job.in_vain = 0
        worker.progress += 1
        if self._stuck:
            self._stuck.discard(worker_id)
        packet.done += count
        packet.seconds += seconds
        worker.tasks += count
        self.done += count
        worker.seconds += seconds
        if count and seconds > 0.0:
            job.seconds = blend(job.seconds, seconds * job.grain / count)
        at = packet.done - count
        for start, stop in again:
            _forget(job, at, start)
            count -= stop - start
            self._delay(packet, start, stop, start + 1, now)
            at = stop
        if job.attempts:
            _forget(job, at, packet.done)
        condemned = worker.condemned
        if condemned is not None and condemned[0] is packet and (final or packet.done > condemned[1]):
            worker.condemned, worker.window = None, self.window  # the item came to its end after all
        if final:
            ran = packet.done - packet.start
            self.sizes[ran] = self.sizes.get(ran, 0) + 1
            if self.happened is not None:  # no story needs it
                self.happened.append(("done", self.now, worker_id, seq, job.id, packet.start, ran, packet.seconds))
            self._drop(worker, packet, unbegun=packet.stop - packet.done)
            if packet.done < packet.stop:
                self._wait_again(job, packet.done, packet.stop, 0, packet.order)
            if worker.inflight:
                dry = next(iter(worker.inflight.values())).state == ENCODING
                self._stretch = stretched(self._stretch, dry=dry, least=self._least_stretch)
        job.resolved += count
        self.unresolved -= count
        if job.closed:
            self._finish_if_done(job)
        if final:
            self._settle(worker)
        elif again:
            self._fill()

    def packet_lost(self, worker_id: int, seq: int, cause: Cause, now: float) -> None:
        """The packet is lost, whatever it had begun, and the worker is there: it stands for many processes."""
        worker = self.workers[worker_id]
        packet = worker.inflight[seq]
        if worker.condemned is not None and worker.condemned[0] is packet:
            worker.condemned, worker.window = None, self.window
        self._drop(worker, packet)
        self._lose(packet, packet.done, packet.stop - packet.done, cause, DIED, now)
        self._settle(worker)

    def taken_back(self, worker_id: int, seq: int | None) -> None:
        """The oldest unread packet of the worker was taken from its pipe; None: it had read them all."""
        worker = self.workers.get(worker_id)
        if worker is None:
            return
        if seq is None:  # or it was asked for the last one, and may give that back later
            worker.sealed = next(reversed(worker.inflight), 0)
        if seq not in worker.inflight:
            return
        self._requeue([worker.inflight[seq]])
        self._fill(but=worker if worker.inflight else None)  # it is for others, unless this one has become idle

    @property
    def runs_dry(self) -> bool:
        """Whether workers have been running out of packets for a while, though work was waiting."""
        return self._stretch >= STRETCH

    @property
    def wants_ticks(self) -> bool:
        """Whether something may have to move, though nothing is reported: see `tick`."""
        if self.divisible > 0 and self._cuts:
            return True
        if not self.slack[0]:
            return False
        return bool(self.ready) or bool(self.slack[-1] and self._loaded() is not None)

    def tick(self) -> None:
        """A moment has passed. A worker that made no progress in it, and holds more than it runs, is cut short.

        What is behind a long task, or one that waits for it, can then run elsewhere; and what it has done is reported.
        """
        for worker in self.workers.values():
            if worker.progress != worker.seen:
                worker.seen = worker.progress
                continue
            if worker.inflight:
                self._stuck.add(worker.id)
            if self._cuts and any(p.divisible and p.state == SENT for p in worker.inflight.values()):
                first, *behind = worker.inflight
                worker.sealed = first
                if behind and worker.inflight[behind[-1]].state == SENT:
                    # Else it would begin that when it is cut short, ahead of what it was not to begin.
                    self.commands.append(("take_back", worker.id, first))
                else:
                    self.commands.append(("cut", worker.id))
        if self.ready:
            self._fill()  # what runs may not be as quick as it was
        else:
            self._steal()  # the last attempt may have come at the wrong moment

    def cut_off(self, worker_id: int, seq: int, stop: int) -> None:
        """The worker will not begin item `stop` of the packet, nor what is behind it; that may be all of it."""
        worker = self.workers.get(worker_id)
        if worker is None or seq not in worker.inflight:
            return
        packet = worker.inflight[seq]
        job, end = packet.job, packet.stop
        self._undivide(packet)
        if stop >= end:
            return
        packet.stop, packet.state = stop, CUT
        job.packet = 1  # its items are not what they were: grow again from here
        held = len(worker.inflight)
        if worker.allowance >= 0:
            if not worker.allowance and worker.state == READY:
                self.slack[held][worker_id] = worker
            worker.allowance += -(-(end - stop) // job.grain)
        self._wait_again(job, stop, end, 0, packet.order)
        self._fill()

    def _undivide(self, packet: Packet) -> None:
        if packet.divisible:
            packet.divisible = False
            self.divisible -= 1

    # -- workers ------------------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether something is still to come: an answer, or the end of a worker that was let go."""
        return self.unresolved > 0 or (self.draining and bool(self.workers)) or len(self.workers) > self.alive

    def open(self) -> None:
        """Ask for all workers at once."""
        self._start(self.processes)

    def resize(self, processes: int) -> None:
        """From now on there are to be so many workers; 0: what waits does so until there are more."""
        if self.stopped:
            return
        self.processes = processes
        for worker in self.workers.values():
            if worker.slot >= processes:
                self._retire(worker)
        self._start_again()
        self._fill()

    def worker_ready(self, worker_id: int) -> None:
        """The worker's process runs and its initializer has returned."""
        worker = self.workers[worker_id]
        self._failed_starts = 0
        worker.started = True
        self._unready -= 1
        if worker.state == STARTING:
            worker.state = READY
            self._starting -= 1
            self._note("started", worker_id, worker.slot)
            if not self.stopped:
                self.slack[0][worker_id] = worker
                self._fill()

    def worker_gone(
        self,
        worker_id: int,
        begun: int = 0,
        item: int | None = None,
        width: int = 1,
        cause: Cause = (0, None, ""),
        now: float = 0.0,
    ) -> None:
        """The worker's process has ended, and all that it wrote was given to `answered`.

        Args:
            worker_id: The worker.
            begun: The seq of the last packet that it began (0: none), from its status page.
            item: The item that it ran then, or had run last; None if it had not come to the first one.
            width: How many items from `item` on may have begun; 0: it was unpickling them, to the packet's end.
            cause: How it ended; handed on with the commands that come of it.
            now: The time.
        """
        worker = self.workers.pop(worker_id)
        self._stuck.discard(worker_id)
        self._unready -= not worker.started
        if worker.state != RETIRING:
            self.deaths[worker.slot] = self.deaths.get(worker.slot, 0) + 1
        self._note("ended", worker_id, worker.slot, *cause)
        suspect, culprit, sentence = worker.condemned or (None, 0, DIED)
        if worker.state != RETIRING:
            self.alive -= 1
        if worker.state == STARTING:
            self._starting -= 1
            self._failed_starts += 1
        elif worker.state == READY:
            self._failed_starts = 0  # it had shown that workers can start
        self.slack[len(worker.inflight)].pop(worker_id, None)
        for packet in worker.inflight.values():
            self._undivide(packet)
            self._timed -= packet.job.limits.timeout > 0.0
        # Packets are written in any order, as several threads encode; but a worker begins one only after the final
        # answer to the one before. So what it begun last is all that it can have begun of what is not answered.
        held = worker.inflight.pop(begun, None) if item is not None else None
        self._requeue(list(worker.inflight.values()), worker)
        if held is not None and item is not None:
            self._lose(held, item, width, cause, sentence if suspect is held and culprit == item else DIED, now)
        if self._failed_starts >= START_ATTEMPTS and self.alive == self._starting:
            self._give_up_waiting(cause, DIED if worker.started else sentence)
        self._replace()
        self._fill()
        self._retire_if_idle()

    def close(self) -> None:
        """No job will be added; when nothing is left to do the workers retire."""
        self.draining = True
        self._retire_if_idle()

    def terminate(self) -> list[tuple[Job, int, int]]:
        """Stop: return the spans of items that were not resolved. Workers are ended by the caller."""
        self.draining = self.stopped = True
        open_spans = [(self.jobs[job], start, stop) for job, start, stop, _, _ in self.ready]
        open_spans += [(self.jobs[job], start, stop) for (job, start), (_, stop, _) in self.delayed.items()]
        for worker in self.workers.values():
            open_spans += [(p.job, p.done, p.stop) for p in worker.inflight.values() if p.done < p.stop]
            worker.inflight.clear()
        self.divisible = self._timed = 0
        self._stuck.clear()
        self.ready.clear()
        self.delayed.clear()
        for level in self.slack:
            level.clear()
        for command in self.commands:
            if command[0] == "start":  # nobody has taken it: there is no process whose end would be reported
                worker = self.workers.pop(command[1])
                self._unready -= 1
                if worker.state == STARTING:  # else it was let go before it was asked for
                    self._starting -= 1
                    self.alive -= 1
        self.commands = [command for command in self.commands if command[0] in ("lost", "unstartable", "finished")]
        self._due.clear()
        for job, start, stop in open_spans:
            job.resolved += stop - start
        self.unresolved = 0
        self.jobs.clear()
        return open_spans

    def abandon(self) -> None:
        """Stop, whatever state this is in: a step was interrupted, so none of it can be believed.

        What is left are workers that hold nothing and are let go; their ends may still be reported.
        """
        self.draining = self.stopped = True
        for worker in self.workers.values():
            worker.inflight.clear()
            worker.state, worker.started = RETIRING, True
        self.commands.clear()
        self._stuck.clear()
        self.ready.clear()
        self.delayed.clear()
        self._due.clear()
        self.jobs.clear()
        for level in self.slack:
            level.clear()
        self.unresolved = self.divisible = self._timed = self.alive = self._starting = self._unready = 0

    # -- decisions ----------------------------------------------------------------------------------------------------

    def _fill(self, but: Worker | None = None) -> None:
        """Give packets to workers, the emptiest first, while something waits. `but` gets nothing this time."""
        if self.stopped:
            return
        ready = self.ready
        level = 0
        while ready and level < self.window:
            if level or not self._crowded(self.jobs[ready[0][0]]):
                for worker in reversed(self.slack[level].values()):  # who came last has its code in a cache, likely
                    if worker is not but and (not level or self._may_queue(worker, ready[0])):
                        self._assign(worker)
                        level = -1
                        break
            level += 1
        if ready:
            self._replace()
        else:
            self._steal()

    def _crowded(self, job: Job) -> bool:
        """Whether an idle worker is not to be woken for items of this job: the processors have enough to do, and to
        wake it costs more than such an item. If somebody is stuck, they may not be quick, or wait for each other.
        """
        if not 0 < self._cores < self.processes or not 0.0 <= job.seconds < QUICK or self._stuck:
            return False
        return sum(map(len, self.slack)) - len(self.slack[0]) >= self._cores

    def _may_queue(self, worker: Worker, span: list[int]) -> bool:
        """Whether it may get a packet of this span behind what it holds: S10."""
        if len(worker.inflight) >= worker.window or worker.sealed in worker.inflight:
            return False
        _, start, _, _, order = span
        if not order:
            return True
        last = next(reversed(worker.inflight.values()))
        return (last.order, last.start) < (order, start)

    def _assign(self, worker: Worker) -> None:
        span = self.ready[0]
        job = self.jobs[span[0]]
        start = span[1]
        chunks = 1
        if job.waiting > job.grain:
            chunks = min(
                fitting(job.seconds, self.processes, job.packet, adaptive=job.adaptive, stretch=self._stretch),
                fair_share(-(-job.waiting // job.grain), self.processes, more_to_come=job.lazy and not job.closed),
                span[3] or job.most,
            )
        if not span[3]:
            job.packet = chunks
        if worker.allowance >= 0:
            chunks = min(chunks, worker.allowance)
        stop = min(span[2], start + chunks * job.grain)
        if stop == span[2]:
            self.ready.popleft()
        else:
            span[1] = stop
        job.waiting -= stop - start
        self._seq = seq = self._seq + 1
        packet = Packet(seq, job, start, stop, worker.id, span[4])
        held = len(worker.inflight)
        worker.inflight[seq] = packet
        if packet.divisible:
            self.divisible += 1
        if job.limits.timeout:
            self._timed += 1
        if not held:
            worker.progress += 1  # a tick that comes now says nothing about it
        del self.slack[held][worker.id]
        if worker.allowance >= 0:
            worker.allowance -= -(-(stop - start) // job.grain)
        if worker.allowance:
            self.slack[held + 1][worker.id] = worker
        self.commands.append(("encode", packet))

    def _steal(self) -> None:
        """A worker is idle and nothing waits: take an unread packet from one that holds several.

        However quick such tasks were until now: the one in front may be a long one, or wait for what is behind it.
        """
        if not self.slack[0] or not self.slack[-1] or (worker := self._loaded()) is None:
            return
        if not self._crowded(next(reversed(worker.inflight.values())).job):
            self.commands.append(("take_back", worker.id, 0))

    def _loaded(self) -> Worker | None:
        """Return a worker that holds a packet which it may not have read."""
        if self.window > 1:
            for worker in self.slack[-1].values():
                if next(reversed(worker.inflight.values())).state == SENT:
                    return worker
        return None

    def _settle(self, worker: Worker) -> None:
        """A worker has fewer packets than before: give it more, or let it go."""
        if not worker.inflight and not worker.allowance:
            self._failed_starts = 0  # it has shown that workers can start
            self._retire(worker)
            self._replace()
        self._fill()
        if self.draining:
            self._retire_if_idle()

    def _drop(self, worker: Worker, packet: Packet, unbegun: int = 0) -> None:
        """Take a packet from a live worker's list, and put it on its new level; `unbegun` items do not count."""
        held = len(worker.inflight)
        del worker.inflight[packet.seq]
        if held == 1:
            self._stuck.discard(worker.id)
        if packet.divisible:
            self._undivide(packet)
        if packet.job.limits.timeout:
            self._timed -= 1
        exhausted = not worker.allowance
        if unbegun and worker.allowance >= 0:
            worker.allowance += -(-unbegun // packet.job.grain)
        if worker.state == READY and worker.allowance:
            if not exhausted:
                del self.slack[held][worker.id]
            self.slack[held - 1][worker.id] = worker

    def _requeue(self, packets: list[Packet], gone: Worker | None = None, most: int = 0) -> None:
        """These packets never started: their items wait again, ahead of all others, in their order."""
        for packet in reversed(packets):
            if packet.state != ENCODING:
                items = packet.stop - packet.done
                self._note("returned", packet.worker, packet.seq, packet.job.id, packet.done, items)
            if gone is None:
                self._drop(self.workers[packet.worker], packet, unbegun=packet.stop - packet.done)
            self._wait_again(packet.job, packet.done, packet.stop, most, packet.order)

    def _wait_again(self, job: Job, start: int, stop: int, most: int, order: int) -> None:
        if job.dropped:
            self._resolve(job, stop - start)
        elif start < stop:  # else it was withdrawn as a whole before
            if not self.alive:  # a worker that was let go has handed this back
                self._start_again()
            place = 0
            for span in self.ready:
                if not span[4] or (order, start) < (span[4], span[1]):
                    break
                place += 1
            self.ready.insert(place, [job.id, start, stop, 1 if start in job.attempts else most, order])
            job.waiting += stop - start

    def _lose(self, packet: Packet, item: int, width: int, cause: Cause, why: str, now: float) -> None:
        """The worker died in this packet. What it may have begun is lost, or begins again; the chunks behind that never
        started.
        """
        grain, start, stop = packet.job.grain, packet.done, packet.stop
        if not width and self._tell_apart(packet, why):
            return
        if width:  # it may be done, and its result salvaged: then nothing is lost
            begun = -(-(item + width - packet.start) // grain) * grain  # items, in whole chunks
            stop = max(start, min(stop, packet.start + begun))
        if stop < packet.stop:
            self._wait_again(packet.job, stop, packet.stop, 0, packet.order)
        job = packet.job
        if why in job.limits.outlives:
            while start < stop:
                end = min(stop, start + grain - (start - packet.start) % grain)
                if not self.may_begin_again(job, start, end):
                    break
                self._delay(packet, start, end, end, now)
                start = end
        if start < stop:
            _forget(job, start, stop)
            self._note("lost", packet.worker, job.id, start, stop - start, why)
            self.commands.append(("lost", job.id, start, stop, cause, why))
            self._resolve(job, stop - start)

    def _tell_apart(self, packet: Packet, why: str) -> bool:
        """The worker was unpickling these items, together; none has begun. Send them again in smaller packets.

        If that is what killed it: in halves, as long as some of the job's items get through; else one worker after the
        other would die of a million of them.
        """
        job, start, stop = packet.job, packet.done, packet.stop
        chunks = -(-(stop - start) // job.grain)
        if chunks <= 1 or (why == DIED and job.in_vain >= IN_VAIN_MOST):
            return False
        job.in_vain += why == DIED
        half = (chunks + 1) // 2
        middle = start + half * job.grain
        most = half if why == DIED else 1
        self._wait_again(job, start, middle, most, packet.order)
        self._wait_again(job, middle, stop, most, packet.order)
        return True

    def _resolve(self, job: Job, count: int) -> None:
        job.resolved += count
        self.unresolved -= count
        self._finish_if_done(job)

    def _finish_if_done(self, job: Job) -> None:
        if job.closed and job.resolved == job.added and self.jobs.pop(job.id, None) is not None:
            self.commands.append(("finished", job.id))
            self._retire_if_idle()

    # -- limits and further attempts ----------------------------------------------------------------------------------

    def _delay(self, packet: Packet, start: int, stop: int, begun: int, now: float) -> None:
        """These are to begin again; those before `begun` have begun in vain. The caller fills."""
        job = packet.job
        for item in range(start, begun):
            job.attempts[item] = job.attempts.get(item, 0) + 1
        self.retried += begun - start
        self._note("retried", job.id, start, job.attempts.get(start, 0) + 1)
        if job.limits.backoff:
            due = now + job.limits.backoff * 2.0 ** min(job.attempts[start] - 1, MOST_DOUBLINGS)
            self.delayed[job.id, start] = due, stop, packet.order
            heappush(self._due, (due, job.id, start))
        else:
            self._wait_again(job, start, stop, 0, packet.order)

    def release(self, now: float) -> float | None:
        """Let begin again what has waited for its time; return in how many seconds the next may, None: none waits."""
        released = False
        while self._due:
            due, job_id, start = self._due[0]
            there = self.delayed.get((job_id, start), (-1.0, 0, 0))[0] == due  # else it was cancelled
            if there and due > now:
                break
            heappop(self._due)
            if there:
                _, stop, order = self.delayed.pop((job_id, start))
                self._wait_again(self.jobs[job_id], start, stop, 0, order)
                released = True
        if released:
            self._start_again()
            self._fill()
        return self._due[0][0] - now if self._due else None

    @property
    def timed(self) -> bool:
        """Whether something may take too long: see `overdue`."""
        return self._timed > 0 or (self.start_timeout > 0.0 and self._unready > 0)

    def overdue(self, now: float, running: dict[int, tuple[int, int, float]]) -> float | None:
        """Condemn workers that take too long; return for how many seconds none can, None: for ever.

        Args:
            now: The time.
            running: For workers that run an item: the packet's seq, the item, and since when. For those that were
                started and are not ready yet: 0, 0, and since when.
        """
        look: float | None = None
        for worker in list(self.workers.values()):
            if not worker.started:
                if self.start_timeout:
                    since = running.get(worker.id, (0, 0, now))[2]
                    left = since + self.start_timeout - now
                    if left <= 0.0:
                        worker.condemned = (None, 0, OVERDUE)
                        self.commands.append(("expel", worker.id, 0, 0, since))
                        left = self.start_timeout
                    look = left if look is None else min(look, left)
                continue
            limits = [packet.job.limits.timeout for packet in worker.inflight.values() if packet.job.limits.timeout]
            if not limits:
                continue
            left = min(limits)  # what it has not begun now can't be overdue sooner
            if worker.id in running:
                seq, item, since = running[worker.id]
                packet = worker.inflight.get(seq)
                if packet is not None and packet.job.limits.timeout:
                    left = since + packet.job.limits.timeout - now
                    if left <= 0.0:
                        self.condemn(worker, packet, item, since, OVERDUE)
                        left = packet.job.limits.timeout
            look = left if look is None else min(look, left)
        return look

    def condemn(self, worker: Worker, packet: Packet, item: int, since: float, why: str) -> None:
        """End this worker, as long as it runs this item, since then: nothing more is sent to it."""
        worker.condemned, worker.window = (packet, item, why), 1
        self.commands.append(("expel", worker.id, packet.seq, item, since))
        self._requeue([held for held in worker.inflight.values() if held.state == ENCODING])
        self._fill()

    # -- the number of workers ----------------------------------------------------------------------------------------

    def _start(self, count: int) -> None:
        if not count:
            return
        taken = {worker.slot for worker in self.workers.values() if worker.state != RETIRING}
        free = [slot for slot in range(self.processes) if slot not in taken]
        for slot in free[:count]:
            self._next_worker += 1
            self.workers[self._next_worker] = Worker(self._next_worker, slot, self._allowance, self.window)
            self.alive += 1
            self._starting += 1
            self._unready += 1
            self._note("starting", self._next_worker, slot)
            self.commands.append(("start", self._next_worker, slot))

    def _start_again(self) -> None:
        """If workers could not be started: something new waits, or there are other places, so it is tried again."""
        if self._failed_starts >= START_ATTEMPTS and not self._starting:
            self._failed_starts = 0

    def _replace(self) -> None:
        """Bring the number of workers back to `processes`; while draining, only as many as still find work."""
        if self.stopped or self._failed_starts >= START_ATTEMPTS:
            return
        wanted = self.processes
        if self.draining:
            wanted = min(wanted, self.alive - self._starting + len(self.ready)) if self.ready else 0
        self._start(max(0, wanted - self.alive))

    def _give_up_waiting(self, cause: Cause, why: str) -> None:
        """Workers can't be started: what waits fails, and no more are started until new items come."""
        spans, self.ready = self.ready, deque()
        for job_id, start, stop, _, _ in spans:
            self.commands.append(("unstartable", job_id, start, stop, self._failed_starts, cause, why))
            job = self.jobs[job_id]
            job.waiting -= stop - start
            self._resolve(job, stop - start)

    def _retire(self, worker: Worker) -> None:
        if worker.state == RETIRING:
            return
        if worker.state == STARTING:
            self._starting -= 1
        self.slack[len(worker.inflight)].pop(worker.id, None)
        worker.state = RETIRING
        self.alive -= 1
        self._note("retired", worker.id, worker.slot)
        self.commands.append(("retire", worker.id))

    def _retire_if_idle(self) -> None:
        """While draining and with no job left: every worker may go."""
        if self.draining and not self.stopped and not self.jobs:
            for worker in self.workers.values():
                self._retire(worker)

    # -- what the tests assert after every event ----------------------------------------------------------------------

    def check(self) -> None:
        """Assert S1 to S10."""
        self._check_s1(self.ready)
        for level, workers in enumerate(self.slack):
            for worker in workers.values():
                assert worker.state == READY, worker
                assert len(worker.inflight) == level, (level, worker.inflight)  # S2
                assert worker.allowance, worker  # S5
        orders = [(span[4], span[1]) if span[4] else (self._seq + 1, 0) for span in self.ready]
        assert orders == sorted(orders), self.ready  # S10
        for worker in self.workers.values():
            orders = [(packet.order, packet.start) for packet in worker.inflight.values()]
            assert orders == sorted(orders), worker.inflight  # S10
            assert len(worker.inflight) <= self.window  # S2
            if worker.state == READY and worker.allowance and not self.stopped:
                assert worker.id in self.slack[len(worker.inflight)]  # S2
        alive = sum(worker.state != RETIRING for worker in self.workers.values())
        assert alive == self.alive <= self.processes  # S3
        if self.ready and self.processes and not self.stopped:
            assert alive  # S4
            assert not self.slack[0] or self._crowded(self.jobs[self.ready[0][0]])  # S8
        assert all(self.workers[worker].inflight for worker in self._stuck)
        packets = [packet for worker in self.workers.values() for packet in worker.inflight.values()]
        assert self.divisible == sum(packet.divisible for packet in packets)  # S6
        assert self.unresolved == sum(job.added - job.resolved for job in self.jobs.values())  # S6
        assert self._unready == sum(not worker.started for worker in self.workers.values())  # S6
        assert self._timed == sum(packet.job.limits.timeout > 0.0 for packet in packets)  # S6
        slots = [worker.slot for worker in self.workers.values() if worker.state != RETIRING]
        assert len(set(slots)) == len(slots), slots  # S9
        assert all(0 <= slot < self.processes for slot in slots), slots  # S9

    def _check_s1(self, ready: Iterable[list[int]]) -> None:
        for job in self.jobs.values():
            spans = [(start, stop) for j, start, stop, _, _ in ready if j == job.id]
            assert sum(stop - start for start, stop in spans) == job.waiting
            spans += [(start, stop) for (j, start), (_, stop, _) in self.delayed.items() if j == job.id]
            assert all(1 <= failed <= job.limits.retries for failed in job.attempts.values()), job.attempts  # S7
            for worker in self.workers.values():
                held = [p for p in worker.inflight.values() if p.job is job and p.done < p.stop]
                spans += [(p.done, p.stop) for p in held]
                assert all(p.attempt == 1 or p.stop - p.start <= job.grain for p in held), held  # S7
            spans.sort()
            assert all(a[1] <= b[0] for a, b in pairwise(spans)), spans
            open_items = sum(stop - start for start, stop in spans)
            assert open_items + job.resolved == job.added, (job.id, spans, job.resolved, job.added)


def _forget(job: Job, start: int, stop: int) -> None:
    """Items `start` to `stop` will not begin again."""
    attempts = job.attempts
    if attempts:
        those = range(start, stop) if stop - start < len(attempts) else [i for i in attempts if start <= i < stop]
        for item in those:
            attempts.pop(item, None)
