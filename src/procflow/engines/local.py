"""The local engine: worker processes on this machine, each with pipes of its own.

    pool --- task pipe (packets) ---> worker        no lock and no pipe is shared by two workers; so whatever a
    pool <-- result pipe (frames) --- worker        worker was doing when it died concerns nobody else, and the pool
    pool <-- status page ------------ worker        knows exactly what it held
    pool <-- sentinel --------------- its end

L1  A worker's descriptors are closed in `reap` only, under the pool's lock, after they left the poller.
L2  Death is the sentinel; before it is reported, everything the worker had written is read and reported.
L3  Children of this process that are not this worker never hold these pipes: they are close-on-exec, and `owned` closes
    them after any fork.
L4  Under spawn and forkserver no more workers boot at once than there are cores. The others are launched as these come
    up, by who waits for reports; so the first result does not wait for the last worker.
"""

from __future__ import annotations

import errno
import marshal
import os
import signal
import sys
from collections import deque
from contextlib import suppress
from struct import error as struct_error
from time import monotonic, perf_counter

from procflow.cpu import cpu_count
from procflow.engines.encoding import join_calls, pack_function, pack_header
from procflow.engines.local_worker import READ_MAX, Cut, Expelled, LocalWorker, Sent
from procflow.engines.poller import open_poller
from procflow.engines.setup import Setup
from procflow.errors import PicklingError
from procflow.shown import told
from procflow.start import tracker
from procflow.start.launch import launch, launch_fork
from procflow.start.owned import disown, opening, own
from procflow.start.passing import dumps_for_child
from procflow.start.places import note
from procflow.start.spool import anonymous_file
from procflow.wire.blocks import PLACE, Writer, can_map, nbytes_in
from procflow.wire.channel import open_channel
from procflow.wire.holding import holding_calls
from procflow.wire.packets import AGAIN, CALLS, FAILURE, IN_BLOCKS, PACKET_MAX, TASK, TRACKER
from procflow.wire.parcels import Reader
from procflow.wire.pickling import pack
from procflow.wire.pieces import Pieces
from procflow.worker.answer import write_aside
from procflow.worker.main import FDS, prepare, serve
from procflow.worker.records import levels_here
from procflow.worker.status import CUT_PAUSE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from procflow.engines.base import Report, Work, WorkerFacts
    from procflow.scheduling.scheduler import Packet
    from procflow.worker.main import Facts

    Encoded = tuple[bytes, tuple[int, ...]]  # the packet, and the slots of its blocks

__all__ = ["LocalEngine"]

sched_yield = getattr(os, "sched_yield", lambda: None)

SPIN = 50e-6  # seconds of looking for an answer before sleeping; also what counts as a quick task
GRACE = 1.0  # seconds from SIGTERM to SIGKILL when the pool is terminated
ENTRY = "procflow.worker.main:run"
PRELOAD = ("procflow.worker.main",)  # the fork server imports it once


class LocalEngine:
    """See the module.

    Args:
        method: The start method: "fork", "spawn" or "forkserver".
        setup: What its workers are made with; multiprocessing's own locks, queues and connections may be among the
            arguments of the initializer.
        eager: Let a worker look for its next packet a moment before it sleeps; only where each has a core.
        portable: Use only what every system has: plain pipes, select, temporary files.
    """

    inline = False
    cuts = True
    expels = True
    most = 65_536
    stretch = 1.0
    refuses: Mapping[str, str] = {}

    def __init__(
        self,
        method: str,
        setup: Setup | None = None,
        *,
        eager: bool = False,
        portable: bool = False,
    ) -> None:
        self._setup = setup or Setup()
        self._eager = eager
        self._method = method
        # Pickled here for the first worker, so that what can't be sent is an error of Pool() and not of its tasks.
        self._first_packed: tuple[bytes, list[int]] | None = self._pack_custom()
        self._portable = portable
        self.takes_back = not portable and hasattr(os, "O_DIRECT")
        self.window = 2
        self._workers: dict[int, LocalWorker] = {}
        self._by_fd: dict[int, LocalWorker] = {}
        self._functions: dict[int, bytes] = {}  # by job
        self._unstarted: list[Report] = []  # workers that could not be started; appended by any thread
        self._waiting: deque[int] = deque()  # workers to be launched
        self._slots: dict[int, int] = {}  # of the workers that are not reaped
        self._booting: set[int] = set()  # launched, and not heard of yet
        # More interpreters than cores, booting at once, would all be late, the first one too. Forks are made at once:
        # the fork of a process that has threads by then is the riskier one.
        self.cores = cpu_count()
        self._most_booting = sys.maxsize if method == "fork" else max(2, self.cores)
        self._quick = False  # the last task took less than SPIN
        self._held_calls: tuple[Callable[[int, int], bytes], Callable[[int, bytes], int]] | None = None
        self._cuts: dict[int, Cut] = {}  # workers that were asked to stop
        self._expelled: dict[int, Expelled] = {}  # workers that are to be ended, should they still run the same item
        self._retired: set[int] = set()  # workers that were let go, perhaps before they were started
        self._terminated = False
        # The one tracker of this process is to know the shared memory that tasks make, or each worker starts its own,
        # which removes it when the worker ends. multiprocessing.resource_tracker
        if method == "fork":
            tracker.reserve()
        else:
            tracker.ensure_running()
        self._poller = open_poller(portable=portable)
        self._mapped = can_map() and not portable
        try:
            with opening:
                fd = own(anonymous_file("procflow-tasks", portable=portable))
            self._tasks = Writer(fd, mapped=self._mapped)
        except BaseException:
            self._poller.close()
            raise
        self._spare: list[Reader] = []  # files for results, of workers that are gone: the next ones get them
        self._results: list[Reader] = []  # all of them

    # -- packets ------------------------------------------------------------------------------------------------------

    def pack_call(self, function: Callable[..., object], args: object, kwargs: object) -> bytes | Pieces:
        packed = pack((function, args, kwargs))
        return packed if isinstance(packed, bytes) else packed.frozen()

    def encode(self, work: Work, packet: Packet, oldest: int) -> Encoded:
        function = b""
        payload: bytes | Pieces
        if work.kind == CALLS:
            payload = join_calls(work.items(packet.start, packet.stop))  # type: ignore[arg-type]
        else:
            worker = self._workers.get(packet.worker)
            if worker is None or packet.job.id not in worker.known:
                function = self._pack_function(work)
            payload = pack(work.items(packet.start, packet.stop))
        in_packet = TASK.size + len(function) + len(payload) <= PACKET_MAX
        header = pack_header(work, packet, oldest, len(function), 0 if in_packet else IN_BLOCKS)
        if in_packet:
            return header + function + payload, ()  # type: ignore[operator]  # pieces are larger than a packet
        places = self._store(function, payload)
        return header + places, _slots_of(places)

    def _store(self, function: bytes, payload: bytes | Pieces) -> bytes:
        """Put a packet's body into blocks; return their places."""
        parts, buffers = ([payload], ()) if isinstance(payload, bytes) else (payload.parts, payload.buffers)
        pieces = Pieces([function, *parts], buffers)
        try:
            places = self._tasks.store(pieces)
            if places is None:
                raise OSError(errno.ENOMEM, "the workers' tasks hold too many earlier arguments")
        except OSError as refusal:
            raise PicklingError(
                f"there is no room for the arguments, {len(pieces)} bytes: {told(refusal)}. "
                "Give each task less data, or free some memory or disk space."
            ) from refusal
        return places

    def _pack_function(self, work: Work) -> bytes:
        function = self._functions.get(work.id)
        if function is None:
            function = self._functions[work.id] = pack_function(work.function)
        return function

    def send(self, packet: Packet, encoded: object) -> bool:
        data, slots = encoded  # type: ignore[misc]
        worker = self._workers[packet.worker]
        if slots:  # type: ignore[has-type]
            self._tasks.give(slots, worker.id)  # type: ignore[has-type]
        # Noted before it is written: the answer may be read, by the leader, before the write has returned to us.
        worker.sent[packet.seq] = Sent(packet.job.id, packet.start, slots)  # type: ignore[has-type]
        worker.bytes_in += len(data)  # type: ignore[has-type]
        if slots:  # type: ignore[has-type]
            worker.bytes_in += nbytes_in(memoryview(data)[TASK.size :])  # type: ignore[has-type]
        if worker.channel.send(data):  # type: ignore[has-type]
            return True
        self._withdraw(worker, packet.seq)
        return False

    def discard(self, encoded: object) -> None:
        if encoded[1]:  # type: ignore[index]
            self._tasks.free(encoded[1])  # type: ignore[index]

    def take_back(self, worker: int, begun: int = 0) -> int | None:
        held = self._workers.get(worker)
        if held is None or (begun and held.status()[0] != begun):
            return None
        if not held.channel.takes_back:
            self._ask(held, held.revoke)
            return None
        packet = held.take_back()
        if packet is None:
            return None
        seq: int = TASK.unpack_from(packet)[0]
        self._withdraw(held, seq)
        return seq

    def _withdraw(self, worker: LocalWorker, seq: int) -> None:
        """The worker has not seen this packet, and will not: take its blocks back."""
        slots = worker.sent.pop(seq).slots
        if slots:
            self._tasks.free(slots)

    def forget(self, job: int) -> None:
        self._functions.pop(job, None)

    # -- workers ------------------------------------------------------------------------------------------------------

    def start(self, worker: int, slot: int) -> None:
        self._slots[worker] = slot
        if worker not in self._waiting and worker not in self._booting:  # else it is performed again, after Ctrl-C
            self._waiting.append(worker)
        self._launch_waiting()

    @property
    def launching(self) -> bool:
        return bool(self._waiting)

    def _launch_waiting(self) -> None:
        """Launch workers, as many as may boot at once. Called by any thread, also by two at a time.

        Nobody waits for ever: who adds a worker looks at `_booting` after it, who ends a boot at `_waiting` after it.
        """
        while len(self._booting) < self._most_booting:
            try:
                worker = self._waiting.popleft()
            except IndexError:
                return
            if self._terminated:
                self._report_unstarted(worker, "")
                continue
            self._booting.add(worker)
            try:
                self._start_now(worker)
            except BaseException:  # Ctrl-C
                self._booting.discard(worker)
                self._waiting.appendleft(worker)
                raise

    def _start_now(self, worker: int) -> None:
        self._drop_half_started(worker)
        try:
            started = self._launch(worker)
        except Exception as error:  # noqa: BLE001 - EAGAIN, EMFILE; an initializer that no longer pickles
            self._booting.discard(worker)
            self._report_unstarted(worker, _why_unstarted(error))
            return
        self._workers[worker] = started
        self._use_held_calls(started)
        for fd in (started.results, started.child.news):
            self._by_fd[fd] = started
            self._poller.register(fd)
        if worker in self._retired:
            started.close_tasks()
        if self._terminated:  # terminate() ran while we were launching
            started.child.send_signal(signal.SIGKILL)

    def _drop_half_started(self, worker: int) -> None:
        """Ctrl-C came amid the start of this worker, which is now started again."""
        held = self._workers.pop(worker, None)
        if held is not None:
            held.child.send_signal(signal.SIGKILL)
            for fd in (held.results, held.child.news):
                with suppress(OSError, LookupError):  # it did not come to be registered
                    self._unwatch(fd)
            held.close_all()

    def _report_unstarted(self, worker: int, text: str) -> None:
        self._unstarted.append(("gone", worker, 0, None, 1, 0, None, text))
        self._poller.wake()

    def _launch(self, worker: int) -> LocalWorker:
        name = f"PoolWorker-{worker}"
        big = self._results_file()
        try:
            with opening:
                channel = open_channel(portable=self._portable)
                made = LocalWorker(worker, channel, big, portable=self._portable, memory=self._setup.max_memory)
        except BaseException:
            self._spare.append(big)
            raise
        try:
            fds = [channel.reader, made.result_writer, made.page_fd, self._tasks.fd, big.fd]
            slot = self._slots[worker]
            facts = self._describe(name, slot, stream=not channel.takes_back)
            env = self._setup.env(slot)
            if self._method == "fork":
                note(self._setup.initializer, self._setup.context, forks=True)
                tracking = tracker.writing_end()
                made.child = launch_fork(
                    lambda: self._serve_forked(fds, tracking, facts),
                    keep=[*fds, *tracking],
                    name=name,
                    bound=True,
                    prepare=prepare,
                    env=env,
                )
            else:
                custom, passed = self._first_packed or self._pack_custom()
                self._first_packed = None
                head: Any = facts, len(custom)
                made.child = launch(
                    self._method,
                    ENTRY,
                    [marshal.dumps(head), custom],
                    [*fds, *passed],
                    name=name,
                    bound=True,
                    preload=(*PRELOAD, *self._setup.preload),
                    env=env,
                )
        except BaseException:
            made.close_all()
            self._spare.append(big)
            raise
        made.close_childs_ends()
        return made

    def _results_file(self) -> Reader:
        try:
            return self._spare.pop()
        except IndexError:
            with opening:
                fd = own(anonymous_file("procflow-results", portable=self._portable))
            made = Reader(fd, mapped=self._mapped)
            self._results.append(made)
            return made

    def _describe(self, name: str, slot: int, *, stream: bool) -> Facts:
        """Return what a worker in this slot is told of itself."""
        setup, cpus = self._setup, self._setup.cpus(slot)
        return {
            "stream": stream,
            "eager": self._eager,
            "slot": slot,
            "seed": setup.seed,
            "threads": setup.threads,
            "cpus": cpus,
            "name": name,
            "levels": levels_here(),
            "sharers": 1 if cpus else setup.sharers,  # what it is bound to is its own
        }

    def _pack_custom(self) -> tuple[bytes, list[int]]:
        """Pickle the caller's own for a worker. For each anew: descriptors among the arguments may change."""
        setup = self._setup
        if self._method == "fork" or (setup.initializer is None and setup.context is None):
            return b"", []
        given: dict[str, object] = {"the initializer": setup.initializer}
        given |= {f"initargs[{place}]": value for place, value in enumerate(setup.initargs)}
        given["worker_context"] = setup.context
        custom = setup.initializer, setup.initargs, setup.context
        noted = note(setup.initializer, setup.context, forks=False)
        return dumps_for_child((custom, noted), given, "the pool", self._method)

    def _serve_forked(self, fds: list[int], tracking: list[int], facts: Facts) -> int:
        setup = self._setup
        tracker.follow(tracking, lambda: write_aside(fds[1], TRACKER))
        return serve(fds[:FDS], lambda: (setup.initializer, setup.initargs, setup.context), facts)

    def retire(self, worker: int) -> None:
        self._retired.add(worker)  # before we look: it may be about to be started, by another thread
        try:
            self._waiting.remove(worker)
        except ValueError:
            pass
        else:
            self._report_unstarted(worker, "")
        held = self._workers.get(worker)
        if held is not None:
            held.close_tasks()

    def reap(self, worker: int) -> None:
        self._retired.discard(worker)
        self._slots.pop(worker, None)
        self._booting.discard(worker)
        self._cuts.pop(worker, None)
        self._expelled.pop(worker, None)
        held = self._workers.pop(worker, None)
        if held is None:
            return
        held.sent.clear()
        self._tasks.free_owned(worker)
        held.big.settle()
        self._spare.append(held.big)
        held.close_all()

    # -- what happened ------------------------------------------------------------------------------------------------

    def wait(self, timeout: float | None) -> list[int]:
        if self._waiting:  # now, when the results of the last turn are delivered: nobody waits for these launches
            self._launch_waiting()
        if self._unstarted:
            return self._poller.poll(0.0)
        if self._cuts or self._expelled:
            timeout = CUT_PAUSE if timeout is None else min(timeout, CUT_PAUSE)
        if self._quick and timeout != 0.0:
            # A thread that sleeps is woken after 40 to 50 us if its core went to sleep too, and quick tasks are there
            # sooner. Whoever else wants this core gets it by the yield.
            poller = self._poller
            poller.woken = False
            until = perf_counter() + SPIN
            while perf_counter() < until:
                ready = poller.poll(0.0)
                if ready or poller.woken:  # a wake that came now would be missed if we slept after it
                    return ready
                sched_yield()
        return self._poller.poll(timeout)

    def collect(self, ready: list[int]) -> list[Report]:
        reports: list[Report] = []
        ended: list[LocalWorker] = []
        by_fd = self._by_fd
        for fd in ready:
            worker = by_fd.get(fd)
            if worker is None:  # a signal handler has used the pool since it was found ready
                continue
            if fd == worker.results:
                self._read(worker, reports)
                if worker.booted:
                    self._booting.discard(worker.id)
            else:
                ended.append(worker)
        if self._cuts:
            self._settle_cuts(reports)
        if self._expelled:
            self._settle_expelled()
        while self._unstarted:
            reports.append(self._unstarted.pop(0))
        for worker in ended:
            self._report_end(worker, reports)
        return reports

    def _read(self, worker: LocalWorker, reports: list[Report]) -> None:
        first = len(reports)
        try:
            open_end = worker.read(reports)
        except (struct_error, ValueError, LookupError):
            open_end = self._condemn(worker, reports, first)
        for report in reports[first:]:
            if report[0] in ("gone", "record"):
                continue
            if report[0] != "ready" and report[2] not in worker.sent:
                open_end = self._condemn(worker, reports, first)
                break
            if report[0] == "answer" and report[4]:
                self._quick = report[3] < SPIN
                job = worker.sent.pop(report[2]).job  # its blocks are the worker's, until its word in their table
                if report[5] and all(
                    kind & ~AGAIN != FAILURE for kind, _, _ in report[5]
                ):  # none: perhaps it was revoked
                    worker.known.add(job)  # it has the function: later packets need not carry it
            elif report[0] == "split":
                del worker.sent[report[2]]
        if not open_end:  # no news by itself: a task may have closed it, or a child of the worker may hold it
            self._unwatch(worker.results)

    def _condemn(self, worker: LocalWorker, reports: list[Report], first: int) -> bool:
        """What it wrote is no answer to anything: a task has written into its pipe. It ends, and its task fails."""
        del reports[first:]
        worker.child.send_signal(signal.SIGKILL)
        return False

    def _report_end(self, worker: LocalWorker, reports: list[Report]) -> None:
        exitcode = worker.child.poll()
        if exitcode is None:
            return
        self._unwatch(worker.child.news)
        self._booting.discard(worker.id)
        if worker.results in self._by_fd:
            self._read(worker, reports)
            self._unwatch(worker.results)
        self._look(worker, reports)
        begun, item, width = worker.status()
        try:
            pid = worker.child.pid
        except OSError as error:  # the fork server could not start it, or has ended before
            reports.append(("gone", worker.id, 0, None, 1, 0, None, _why_unstarted(error)))
        else:
            text = worker.last_words or worker.stack()
            reports.append(("gone", worker.id, begun, item, width, pid, exitcode, text))

    def _look(self, worker: LocalWorker, reports: list[Report]) -> None:
        with suppress(struct_error, ValueError, LookupError):  # a task may have written into the page
            worker.look(reports)

    def _unwatch(self, fd: int) -> None:
        if self._by_fd.pop(fd, None) is not None:
            self._poller.unregister(fd)

    def cut(self, worker: int) -> None:
        held = self._workers.get(worker)
        if held is not None:
            self._ask(held, held.ask_to_stop)

    def cutting(self, worker: int) -> bool:
        return worker in self._cuts

    def _ask(self, worker: LocalWorker, ask: Callable[[], Cut | None]) -> None:
        """Cut short, one at a time: the pool decides again when it knows what came of it."""
        cut = ask() if worker.id not in self._cuts else None
        if cut is not None:
            self._cuts[worker.id] = cut

    def _settle_cuts(self, reports: list[Report]) -> None:
        """Report where the workers that were asked to stop do so, and what they have done until there."""
        now = monotonic()
        for number, cut in list(self._cuts.items()):
            if now < cut.due:
                continue
            del self._cuts[number]
            worker = self._workers.get(number)
            if worker is not None and cut.seq in worker.sent:
                obeyed = worker.obeys(cut)
                self._look(worker, reports)
                if obeyed:
                    reports.append(("cut", number, cut.seq, cut.stop))

    def facts(self, worker: int) -> WorkerFacts | None:
        held = self._workers.get(worker)
        if held is None:
            return None
        try:
            pid = held.child.pid
        except (AttributeError, OSError):  # it is just being started
            return None
        return pid, held.launched, held.ready_at, held.bytes_in, held.bytes_out

    def running(self) -> dict[int, tuple[int, int, float]]:
        return {number: runs for number, worker in self._workers.items() if (runs := worker.runs()) is not None}

    def expel(self, worker: int, seq: int, item: int, since: float) -> None:
        held = self._workers.get(worker)
        runs = (seq, item, since)
        if held is None or worker in self._expelled or held.runs() != runs:
            return
        # What is behind this item must not be begun before the process is dead: it would be lost with it.
        held.ask_to_stop()
        if not held.channel.takes_back:
            held.revoke()
        held.ask_for_stack()
        self._expelled[worker] = Expelled(runs)

    def _settle_expelled(self) -> None:
        now = monotonic()
        for number, expelled in list(self._expelled.items()):
            worker = self._workers.get(number)
            if worker is None or (worker.runs() != expelled.runs and not expelled.ended):
                del self._expelled[number]  # it came to the item's end after all
            elif expelled.is_due(now, told=worker.has_told_stack):
                expelled.ended = worker.expel(expelled.runs)

    def hold(self) -> None:
        if self._held_calls is None:
            self._held_calls = holding_calls(READ_MAX)
            for worker in list(self._workers.values()):
                self._use_held_calls(worker)

    def _use_held_calls(self, worker: LocalWorker) -> None:
        if self._held_calls is not None:
            worker.read_some, worker.channel.write = self._held_calls

    def wake(self) -> None:
        self._poller.wake()

    def fileno(self) -> int | None:
        return self._poller.fileno()

    def terminate(self) -> None:
        self._terminated = True
        self._most_booting = sys.maxsize
        self._launch_waiting()  # which reports them, now
        workers = list(self._workers.values())
        deadline = monotonic() + GRACE
        try:
            for worker in workers:
                worker.child.send_signal(signal.SIGTERM)
            for worker in workers:
                worker.child.wait(max(0.0, deadline - monotonic()))
        finally:  # also after Ctrl-C in the grace time
            for worker in workers:
                worker.child.send_signal(signal.SIGKILL)
        for worker in workers:
            worker.child.wait()

    def close(self) -> None:
        for worker in list(self._workers):
            self.reap(worker)
        self._by_fd.clear()
        self._poller.close()
        tracker.settle()
        for file in (self._tasks, *self._results):
            fd = file.fd
            file.leave()
            disown(fd)
            os.close(fd)


def _why_unstarted(error: Exception) -> str:
    return f"The last could not be started: {told(error)}"


def _slots_of(places: bytes) -> tuple[int, ...]:
    """Return the slots of these places."""
    return tuple([place[0] for place in PLACE.iter_unpack(places)])
