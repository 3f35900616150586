"""What the engines have in common that run a pool's packets elsewhere: on an Executor, a Dask or a Ray cluster.

    pool --- submit: run_packet(packet, ...) ---> somebody's queue ---> any process of theirs
    pool <-- news: an answer's frames, or what became of it <--- a callback, in a thread of theirs

A *worker* of the scheduler is a place in that queue, not a process: which process takes a packet is the cluster's
business. So a packet that is lost takes nothing with it, and there are as many workers as the cluster has places for
tasks: none at first, more and fewer as it grows and shrinks.

M1  A callback of the cluster only appends to `_settled` or `_news`, and wakes; the thread that leads does all else.
M2  A packet is in `_held` from `send` until somebody takes it out, who then says what became of it, and nobody else.
M3  A worker is reported gone once: by who takes it out of `_held`.
"""

from __future__ import annotations

import os
from collections import deque
from copy import copy
from functools import partial

from procflow.engines.encoding import join_calls, pack_function, pack_header, parse_segments
from procflow.engines.poller import open_poller
from procflow.errors import EngineError
from procflow.shown import told
from procflow.start.culprit import first_culprit
from procflow.start.interrupted import of_a_signal
from procflow.start.main_module import FOREIGN
from procflow.wire.packets import ANSWER_HEADER, CALLS, FRAME, IN_BLOCKS, PIECES, RECORD, REFUSED, SPLIT
from procflow.wire.pickling import dumps, not_picklable, pack
from procflow.wire.pieces import Loose, Pieces
from procflow.worker.remote import VERSIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, Self

    from procflow.engines.base import Report, Segment, Work, WorkerFacts
    from procflow.engines.setup import Setup
    from procflow.scheduling.scheduler import Packet
    from procflow.worker.remote import PoolFacts

    Task = tuple[bytes, int, PoolFacts]  # the arguments of run_packet
    Outcome = bytes | BaseException | None  # an answer; what became of the packet instead; None: it has not begun

__all__ = ["Lost", "RemoteEngine", "missing", "refused"]

ELSEWHERE = "its workers are not this pool's own, and it does not "


class Lost(Exception):
    """The process that held a packet was lost, as its cluster says."""


class RemoteEngine:
    """See the module. An object of the user's own is never opened itself: each pool has a copy."""

    name = ""  # of what it runs on
    inline = launching = False
    takes_back = cuts = expels = False
    window = 2
    most = 65_536
    cores = 0
    stretch = 25.0  # packets of about 50 ms
    refuses: Mapping[str, str] = {
        "timeout": ELSEWHERE + "end one that runs a task. Give the whole call a limit: map(timeout=)",
        "kill": ELSEWHERE + "end one that runs a task. cancel() takes back what has not begun",
        "maxtasksperchild": ELSEWHERE + "replace them. The cluster has an option of its own, perhaps",
        "max_memory_per_worker": ELSEWHERE + "replace them. The cluster has a limit of its own, perhaps",
        "start_timeout": ELSEWHERE + "start them. Tasks wait until there are some",
        "context": ELSEWHERE + "start them. The start method is the cluster's own",
        "preload": ELSEWHERE + "start them. The initializer can import what is needed",
        **dict.fromkeys(
            ["env", "threads_per_worker", "cpu_affinity"], ELSEWHERE + "start them. Have the cluster start them with it"
        ),
        "worker_context": ELSEWHERE + "end them, so nothing would leave the context. Open in the initializer what may "
        "stay open, in the task what may not",
    }

    # -- what differs from cluster to cluster -------------------------------------------------------------------------

    def connect(self) -> None:
        """Find the cluster, and look at the versions of its workers; `resize` tells how many places there are.

        Raises:
            EngineError: It is not there, or its workers have other versions.
        """
        raise NotImplementedError

    def submit(self, task: Task, done: Callable[[Outcome], None]) -> Callable[[], bool] | None:
        """Have `run_packet(*task)` run there; `done` gets what comes of it, in any thread.

        Called under the pool's lock. Return what cancels it at once, where that is possible.
        """
        raise NotImplementedError

    def disconnect(self) -> None:
        """Nothing more will be asked for."""

    # -- one pool -----------------------------------------------------------------------------------------------------

    def open(self, setup: Setup, processes: int | None) -> Self:
        """Return an engine for one pool; `processes` is the number of places that it may have, None for all.

        Raises:
            EngineError: As `connect`.
            PicklingError: The initializer can't be sent.
        """
        made = copy(self)
        made._most_slots = processes
        made._begin(setup)
        try:
            made.connect()
        except BaseException:
            made.close()
            raise
        return made

    _most_slots: int | None

    def _begin(self, setup: Setup) -> None:
        name = os.urandom(8).hex()  # what the other processes know the pool by
        self._facts: PoolFacts = VERSIONS, name, setup.seed, _pack_initializer(setup.initializer, setup.initargs)
        self._slots: dict[int, int] = {}  # by worker
        self._held: dict[int, dict[int, bool]] = {}  # by worker, the packets that the cluster has, by seq
        self._cancels: dict[int, Callable[[], bool] | None] = {}  # by seq
        self._taking = 0  # the packet that is being taken back, under the pool's lock
        self._retired: set[int] = set()
        self._functions: dict[int, bytes] = {}  # by job
        self._settled: deque[tuple[int, int, Outcome]] = deque()  # worker, seq; appended by any thread
        self._news: deque[Report] = deque()  # appended by any thread
        self._down = self._terminated = False
        self._poller = open_poller()

    def resize(self, slots: int) -> None:
        """The cluster has places for so many tasks at once. Any thread may say so."""
        self._tell(("slots", 0, slots if self._most_slots is None else min(slots, self._most_slots)))

    def fail(self, text: str) -> None:
        """The cluster is gone, or can't be used. Any thread may say so."""
        self._down = True
        self._tell(("down", 0, f"the pool's {self.name} is lost: {text}"))

    def _tell(self, news: Report) -> None:
        self._news.append(news)
        self._poller.wake()

    # -- packets ------------------------------------------------------------------------------------------------------

    def pack_call(self, function: Callable[..., object], args: object, kwargs: object) -> bytes | Pieces:
        packed = pack((function, args, kwargs), to=FOREIGN)
        return packed if isinstance(packed, bytes) else packed.frozen()

    def encode(self, work: Work, packet: Packet, oldest: int) -> bytes:
        function = b""
        payload: bytes | Pieces
        if work.kind == CALLS:
            payload = join_calls(work.items(packet.start, packet.stop))  # type: ignore[arg-type]
        else:
            function = self._functions.get(work.id, b"")
            if not function:
                function = self._functions[work.id] = pack_function(work.function, to=FOREIGN)
            payload = pack(work.items(packet.start, packet.stop), to=FOREIGN)
        if isinstance(payload, bytes):
            return pack_header(work, packet, oldest, len(function), 0) + function + payload
        pieces = Pieces([function, *payload.parts], payload.buffers)
        return pack_header(work, packet, oldest, len(function), IN_BLOCKS) + pieces.joined()

    def send(self, packet: Packet, encoded: object) -> bool:
        worker, seq = packet.worker, packet.seq
        held = self._held.get(worker)
        if held is None:  # it is gone, which nobody has heard yet
            return False
        held[seq] = True  # before it is submitted: it may be done at once
        task: Task = (encoded, self._slots[worker], self._facts)  # type: ignore[assignment]
        try:
            cancel = self.submit(task, partial(self._settle, worker, seq))
        except Exception as error:  # noqa: BLE001 - somebody's code: it is shut down, or broken
            self.fail(told(error))
            return True  # until it fails with all the others
        if cancel is not None:
            self._cancels[seq] = cancel
            if seq not in held:
                self._cancels.pop(seq, None)
        return True

    def _settle(self, worker: int, seq: int, outcome: Outcome) -> None:
        if outcome is None and seq == self._taking:
            return
        self._settled.append((worker, seq, outcome))
        self._poller.wake()

    def discard(self, encoded: object) -> None:
        pass

    def take_back(self, worker: int, begun: int = 0) -> int | None:
        held = self._held.get(worker, {})
        for seq in list(held):
            cancel = self._cancels.get(seq)
            if cancel is None:
                continue
            self._taking = seq  # else the callback, which `cancel` calls, would have the leader report it as returned
            taken = cancel() and held.pop(seq, False)  # M2
            self._taking = 0
            if taken:
                self._cancels.pop(seq, None)
                self._end_if_idle(worker)
                return seq
        return None

    def cut(self, worker: int) -> None:
        pass

    def cutting(self, worker: int) -> bool:
        return False

    def running(self) -> dict[int, tuple[int, int, float]]:
        return {}

    def facts(self, worker: int) -> WorkerFacts | None:
        return None

    def expel(self, worker: int, seq: int, item: int, since: float) -> None:
        pass

    def hold(self) -> None:
        pass

    def forget(self, job: int) -> None:
        self._functions.pop(job, None)

    # -- workers ------------------------------------------------------------------------------------------------------

    def start(self, worker: int, slot: int) -> None:
        if worker not in self._held:  # else it is performed again, after Ctrl-C
            self._slots[worker] = slot
            self._held[worker] = {}
            self._tell(("ready", worker))
        # Only now, as another thread may be at it: it ends what it finds in `_held`.
        if self._terminated:
            self._end(worker)
        else:
            self._end_if_idle(worker)

    def retire(self, worker: int) -> None:
        self._retired.add(worker)
        self._end_if_idle(worker)

    def _end_if_idle(self, worker: int) -> None:
        if worker in self._retired and not self._held.get(worker):
            self._end(worker)

    def _end(self, worker: int) -> None:
        if self._held.pop(worker, None) is not None:  # M3
            self._tell(_gone(worker))

    def reap(self, worker: int) -> None:
        self._retired.discard(worker)
        self._slots.pop(worker, None)

    def terminate(self) -> None:
        self._terminated = True
        # A ProcessPoolExecutor that breaks is failing its futures now, one by one, and hangs if one was cancelled.
        # concurrent.futures.process, terminate_broken
        for cancel in [] if self._down else list(self._cancels.values()):
            if cancel is not None:
                cancel()
        self._cancels.clear()
        for worker in list(self._held):
            self._end(worker)

    def close(self) -> None:
        self._terminated = True
        self._held.clear()
        self._poller.close()
        self.disconnect()

    # -- what happened ------------------------------------------------------------------------------------------------

    def wait(self, timeout: float | None) -> list[int]:
        return self._poller.poll(0.0 if self._settled or self._news else timeout)

    def wake(self) -> None:
        self._poller.wake()

    def fileno(self) -> int | None:
        return self._poller.fileno()

    def collect(self, ready: list[int]) -> list[Report]:
        reports: list[Report] = []
        while self._settled:
            worker, seq, outcome = self._settled.popleft()
            if self._held.get(worker, {}).pop(seq, False):  # M2
                self._cancels.pop(seq, None)
                reports += self._conclude(worker, seq, outcome)
                self._end_if_idle(worker)
        while self._news:
            reports.append(self._news.popleft())
        return reports

    def _conclude(self, worker: int, seq: int, outcome: Outcome) -> Iterator[Report]:
        if isinstance(outcome, bytes):
            refusal = refused(outcome)
            if refusal:
                self.fail(f"of a worker, {refusal}")
                yield "answer", worker, seq, 0.0, True, []  # it fails with all the others
            else:
                yield from _parse_frames(worker, seq, outcome)
        elif outcome is None:
            yield "answer", worker, seq, 0.0, True, []  # all of it is returned unbegun
        elif isinstance(outcome, Lost):
            yield "lost", worker, seq, str(outcome)
        else:
            self.fail(missing(outcome) or told(outcome))
            yield "answer", worker, seq, 0.0, True, []  # it fails with all the others

    def __getstate__(self) -> Any:
        raise TypeError(f"a {type(self).__name__} can't be pickled; make one where you need it")

    def __copy__(self) -> Self:
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made


def refused(frames: bytes) -> str:
    """Return why a process would not run the packet; "" if it did."""
    nbytes, kind = FRAME.unpack_from(frames)
    return frames[FRAME.size : FRAME.size + nbytes].decode() if kind == REFUSED else ""


def missing(error: BaseException) -> str:
    """Say in words that a worker lacks what it needs to run a packet; "" if that is not it."""
    if isinstance(error, ModuleNotFoundError) and str(error.name or error).partition(".")[0] == "procflow":
        return "its workers have no procflow: install the version that the pool has where they run"
    return str(error) if isinstance(error, EngineError) else ""


def _gone(worker: int) -> Report:
    return "gone", worker, 0, None, 1, 0, None, ""


def _pack_initializer(initializer: Callable[..., object] | None, initargs: tuple[object, ...]) -> bytes:
    if initializer is None:
        return b""
    try:
        return dumps((initializer, initargs), to=FOREIGN)
    except BaseException as refusal:
        if of_a_signal(refusal):
            raise
        parts: dict[str, object] = {"the initializer": initializer}
        parts |= {f"initargs[{place}]": value for place, value in enumerate(initargs)}
        what = first_culprit(parts, dumps) or "the initializer with its arguments"
        raise not_picklable(what, refusal, parts) from refusal


def _parse_frames(worker: int, seq: int, frames: bytes) -> Iterator[Report]:
    at = 0
    while at < len(frames):
        nbytes, frame = FRAME.unpack_from(frames, at)
        at += FRAME.size
        if frame == RECORD:
            yield "record", worker, frames[at : at + nbytes]
            at += nbytes
            continue
        _, _, seconds, final = ANSWER_HEADER.unpack_from(frames, at)
        segments = parse_segments(frames, at + ANSWER_HEADER.size, at + nbytes)
        at += nbytes
        if segments and segments[0][0] == SPLIT:
            yield "split", worker, seq
            return  # nothing else has come before, and what follows says only that it is the end
        yield "answer", worker, seq, seconds, bool(final), [_opened(segment) for segment in segments]


def _opened(segment: Segment) -> Segment:
    kind, items, data = segment
    return (kind & ~PIECES, items, Loose(data)) if kind & PIECES else segment  # type: ignore[arg-type]
