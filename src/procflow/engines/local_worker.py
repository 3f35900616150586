"""One worker process as the pool holds it: its pipes, its status page, its process."""

from __future__ import annotations

import os
import signal
import sys
from time import monotonic

from procflow.engines.base import OBJECTS
from procflow.engines.encoding import parse_segments
from procflow.start import tracker
from procflow.start.family import Family
from procflow.start.owned import disown, own
from procflow.start.spool import anonymous_file
from procflow.wire.blocks import nbytes_in, reserve
from procflow.wire.packets import (
    ANSWER,
    ANSWER_HEADER,
    BOOTED,
    FRAME,
    FRAME_KINDS,
    INIT_FAILED,
    PLACES,
    READY,
    RECORD,
    SPLIT,
    TRACKER,
)
from procflow.wire.pickling import loads
from procflow.wire.pieces import Loose
from procflow.worker.status import (
    BEGUN,
    CUT_PAUSE,
    FIRST,
    LOG_SIZE,
    LOGGED,
    MEMORY,
    NOTHING,
    OWN_FRAME,
    PAGE_SIZE,
    REVOKED,
    RUNS,
    SINCE,
    STACK_SIGNAL,
    STOP,
    STOP_SEQ,
    WIDEST,
    WIDTH_BITS,
    open_page,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from procflow.engines.base import Report, Segment
    from procflow.start.launch import Child
    from procflow.wire.channel import TaskChannel
    from procflow.wire.parcels import Reader

__all__ = ["READ_MAX", "Cut", "Expelled", "LocalWorker", "Sent"]

READ_MAX = 1 << 16  # bytes read at once: what a pipe holds; for more, bytes objects are mapped and unmapped, 25 us
STACK_MOST = 20_000  # bytes
CUT_OFF = "  ...\n"  # how a stack of more than 100 frames ends
STACK_TIME = 1.0  # seconds that a process has to tell its stack; it takes some milliseconds, if it can
F_SETPIPE_SZ = 1031  # fcntl(2), Linux


class Sent:
    """A packet that a worker holds."""

    __slots__ = ("job", "slots", "told")

    def __init__(self, job: int, first: int, slots: tuple[int, ...]) -> None:
        self.job = job
        self.told = first  # the first item that was not reported yet
        self.slots = slots  # of its blocks


class Cut:
    """A worker was asked not to begin item `stop` of a packet, nor what is behind it."""

    __slots__ = ("due", "running", "seq", "stop")

    def __init__(self, seq: int, stop: int, running: int) -> None:
        self.seq, self.stop = seq, stop
        self.running = running  # the packet that it had begun last; while that is so, it has not begun another one
        self.due = monotonic() + CUT_PAUSE


class Expelled:
    """A worker that was asked for its stack, and is ended when that is there."""

    __slots__ = ("_heard", "_until", "ended", "runs")

    def __init__(self, runs: tuple[int, int, float]) -> None:
        self.runs = runs
        self.ended = False  # its process was told to end; what is left is its report
        self._heard = monotonic() + CUT_PAUSE  # before that, `ask_to_stop` may not have been
        self._until = monotonic() + STACK_TIME

    def is_due(self, now: float, *, told: bool) -> bool:
        """Whether it is to be ended now: it has `told` its stack, or will not."""
        return not self.ended and now >= self._heard and (told or now >= self._until)


class LocalWorker:
    """See the module. Until `close_childs_ends` it also holds the ends that the process is to inherit."""

    child: Child

    def __init__(
        self, worker: int, channel: TaskChannel, big: Reader, *, portable: bool = False, memory: int = 0
    ) -> None:
        """`memory`: bytes that it may keep between packets; 0 for no limit."""
        self.id = worker
        self.channel = channel
        self.big = big  # its results that are in blocks; the file is the engine's, the next worker gets it
        self.known: set[int] = set()  # jobs whose function it has
        self.sent: dict[int, Sent] = {}  # packets it holds, by seq
        self._revoked = 0  # a packet's seq
        self._stack_at = 0  # where in the file of the status page the stacks begin; 0: nobody has asked for them
        self.booted = False  # it was heard of
        self.ready = False  # its initializer has returned
        self.launched = monotonic()
        self.ready_at = 0.0
        self.bytes_in = self.bytes_out = 0  # of packets and of answers, with what was in blocks
        self.last_words = ""  # why its initializer failed
        self.read_some: Callable[[int, int], bytes] = os.read
        self._partial = bytearray()  # the beginning of a frame
        self._open: list[int] = [channel.reader, *channel.fds()]
        self._tasks = channel.fds()
        try:
            self.results, self.result_writer = os.pipe()
            self._open += (self.results, self.result_writer)
            self.page_fd = anonymous_file("procflow-status", portable=portable)
            self._open.append(self.page_fd)
            reserve(self.page_fd, PAGE_SIZE)
            self._page, self._log = open_page(self.page_fd)
            self._page[MEMORY] = memory
        except BaseException:
            for fd in self._open:
                os.close(fd)
            raise
        os.set_blocking(self.results, False)
        for fd in self._open:
            own(fd)

    def read(self, reports: list[Report]) -> bool:
        """Read what is there, and add it to the reports; False at the end of the stream."""
        while True:
            try:
                data = self.read_some(self.results, READ_MAX)
            except BlockingIOError:
                return True
            if not data:
                return False
            self.bytes_out += len(data)
            if self._partial:
                self._partial += data
                used = self._parse(self._partial, reports)
                del self._partial[:used]
            else:
                used = self._parse(data, reports)
                if used < len(data):
                    self._partial += data[used:]
            if len(data) < READ_MAX:
                return True

    def _parse(self, data: bytes | bytearray, reports: list[Report]) -> int:
        """Report the whole frames in `data`; return how many bytes they take."""
        at, end = 0, len(data)
        while end - at >= FRAME.size:
            nbytes, kind = FRAME.unpack_from(data, at)
            if kind not in FRAME_KINDS:  # before its length is believed: what follows might never come
                raise ValueError(f"a frame of kind {kind}")
            body = at + FRAME.size
            if end - body < nbytes:
                break
            at = body + nbytes
            if kind == ANSWER:
                self._parse_answer(data, body, at, reports)
            elif kind == RECORD:
                reports.append(("record", self.id, bytes(data[body:at])))
            elif kind == TRACKER:
                tracker.start()
            elif kind == BOOTED:
                self.booted = True
            elif kind == READY:
                self.booted = self.ready = True
                self.ready_at = monotonic()
                reports.append(("ready", self.id))
            elif kind == INIT_FAILED:
                self.last_words = bytes(data[body:at]).decode("utf-8", "replace")
        return at

    def _parse_answer(self, data: bytes | bytearray, at: int, end: int, reports: list[Report]) -> None:
        seq, first, seconds, final = ANSWER_HEADER.unpack_from(data, at)
        segments = parse_segments(data, at + ANSWER_HEADER.size, end)
        if segments and segments[0][0] == SPLIT:
            reports.append(("split", self.id, seq))
            return
        sent = self.sent[seq]
        if first < sent.told:  # the pool has looked at the log before this came
            segments = _behind(segments, sent.told - first)
        sent.told += sum([items for _, items, _ in segments])
        self._open_parcels(segments)
        reports.append(("answer", self.id, seq, seconds, bool(final), segments))

    def _open_parcels(self, segments: list[Segment]) -> None:
        """Take over what is in blocks. Only now: what was reported before is the user's, or has been used again."""
        for place, (kind, items, data) in enumerate(segments):
            if kind >= PLACES and isinstance(data, bytes):
                if kind & PLACES:
                    self.bytes_out += nbytes_in(data)
                body = self.big.parcel(data) if kind & PLACES else Loose(data)
                segments[place] = (kind & (PLACES - 1), items, body)

    def look(self, reports: list[Report]) -> None:
        """Report results that are in its log: of a process that is dead, or does not come to writing them."""
        page = self._page
        begun, first, logged = page[BEGUN], page[FIRST], page[LOGGED]
        data = bytes(self._log[:logged]) if 0 < logged <= LOG_SIZE else b""
        if not data or begun not in self.sent or page[BEGUN] != begun or page[FIRST] != first or page[LOGGED] < logged:
            return  # nothing, or it is being changed
        sent = self.sent[begun]
        if first > sent.told:  # what comes before is still in the pipe
            return
        segments = parse_segments(data, 0, len(data))
        if segments[0][0] == SPLIT:
            return
        segments = _behind(segments, sent.told - first)
        if segments:
            sent.told += sum([items for _, items, _ in segments])
            self._open_parcels(segments)
            reports.append(("answer", self.id, begun, 0.0, False, segments))

    def status(self) -> tuple[int, int | None, int]:
        """Return seq of the packet begun last, the item it runs or ran last (None: it has not come to one), and how
        many items may have begun (0: none, as it is still unpickling them).
        """
        runs = self._page[RUNS]
        if runs == NOTHING:
            return self._page[BEGUN], None, 1
        width = runs & WIDEST
        return self._page[BEGUN], runs >> WIDTH_BITS, sys.maxsize if width == WIDEST else width

    def ask_to_stop(self) -> Cut | None:
        """Ask it to begin nothing behind what it runs. None if it is between two packets."""
        page, begun = self._page, self._page[BEGUN]
        seq, item, width = self.status()
        if item is None or seq != begun or seq not in self.sent or not 0 < width <= WIDEST:
            return None
        stop = item + width
        if page[STOP_SEQ] != seq or page[STOP] > stop:
            # Never later than it was asked before: it may have obeyed, and be about to find that it may not run `item`.
            page[STOP] = stop
            page[STOP_SEQ] = seq
        return Cut(seq, stop, seq)

    def revoke(self) -> Cut | None:
        """Ask it to begin nothing of the packet that was written last. None if it has no unread one, or has not come to
        another one that was revoked before: there is one word for it.
        """
        begun = self._page[BEGUN]
        seq = next(reversed(self.sent), begun)
        if seq == begun or (self._revoked in self.sent and self._revoked != seq):
            return None
        self._page[REVOKED] = self._revoked = seq
        return Cut(seq, self.sent[seq].told, begun)

    def obeys(self, cut: Cut) -> bool:
        """CUT_PAUSE later: whether the process has not begun what it was asked not to begin, and never will."""
        begun, item, width = self.status()
        if begun != cut.running or self._page[BEGUN] != begun:
            return False
        return begun != cut.seq or (item is not None and item + width <= cut.stop)

    def runs(self) -> tuple[int, int, float] | None:
        """The packet's seq, the item, and since when it runs (only where its time is limited); None: it runs none.

        While it is not ready: 0, 0, and since when it is starting.
        """
        if not self.ready:
            return 0, 0, self.launched
        begun = self._page[BEGUN]
        seq, item, _ = self.status()
        since = self._page[SINCE]
        if begun not in self.sent or item is None or seq != begun or self.status()[:2] != (seq, item):
            return None
        return seq, item, since * 1e-9

    def ask_for_stack(self) -> None:
        """Have the process write its stacks into the file of the status page."""
        self._stack_at = max(PAGE_SIZE, os.fstat(self.page_fd).st_size)
        if STACK_SIGNAL is not None:
            self.child.send_signal(STACK_SIGNAL)

    def stack(self) -> str:
        """What it has written since it was asked, without the frames of what called the task."""
        return "\n\n".join([thread.partition(OWN_FRAME)[0].rstrip() for thread in self._stacks()])

    @property
    def has_told_stack(self) -> bool:
        """Whether the stack is complete. It comes in pieces, between which a process may wait for its processor."""
        main = self._stacks()[-1]  # the oldest thread comes last
        return OWN_FRAME in main or main.endswith(CUT_OFF)

    def _stacks(self) -> list[str]:
        """What it has written since it was asked, a text for each thread; at least one, which may be empty."""
        if not self._stack_at:
            return [""]
        return os.pread(self.page_fd, STACK_MOST, self._stack_at).decode("utf-8", "replace").split("\n\n")

    def expel(self, runs: tuple[int, int, float]) -> bool:
        """End the process, and those below it, if it still runs this; return whether it did."""
        family = Family(self.child.pid)  # before the look: this takes some milliseconds
        if self.runs() != runs:
            return False
        self.child.send_signal(signal.SIGKILL)
        family.kill()
        return True

    def close_childs_ends(self) -> None:
        """The process has been started, and has these."""
        for fd in (self.channel.reader, self.result_writer):
            self._close(fd)

    def take_back(self) -> bytes | None:
        """Return the oldest packet that the process has not read; None if there is none, or nothing can be taken."""
        return self.channel.take_back() if self._tasks[0] in self._open else None

    def close_tasks(self) -> None:
        """Close the task pipe: the worker ends when it has read what is in it."""
        for fd in self._tasks:
            self._close(fd)

    def close_all(self) -> None:
        """Close everything that is still open."""
        for fd in list(self._open):
            self._close(fd)
        child = getattr(self, "child", None)
        if child is not None:
            child.close()

    def _close(self, fd: int) -> None:
        if fd in self._open:
            self._open.remove(fd)
            disown(fd)
            os.close(fd)


def _behind(segments: list[Segment], passed: int) -> list[Segment]:
    """Return the segments without their first `passed` items, which were reported before."""
    rest = list(segments)
    while passed and rest:
        _, items, data = rest[0]
        if items > passed:  # the values of several segments of the log, pickled together: plain ones, see Answer
            rest[0] = (OBJECTS, items - passed, loads(data)[passed:])  # type: ignore[arg-type]
            break
        passed -= items
        del rest[0]
    return rest
