"""One worker process as the pool holds it: its pipes, its status page, its process."""

from __future__ import annotations

import os

from procflow.start.owned import disown, own
from procflow.wire.blocks import anonymous_file
from procflow.wire.packets import ANSWER, ANSWER_HEADER, FRAME, FRAME_KINDS, INIT_FAILED, READY, SEGMENT, SPLIT
from procflow.worker.status import BEGUN, FIRST, ITEM, LOG_SIZE, LOGGED, NOTHING, PAGE_SIZE, WIDTH, open_page

TYPE_CHECKING = False
if TYPE_CHECKING:
    from procflow.engines.base import Report, Segment
    from procflow.start.launch import Child
    from procflow.wire.channel import TaskChannel

__all__ = ["LocalWorker"]

READ_MAX = 1 << 16  # bytes read at once: what a pipe holds; for more, bytes objects are mapped and unmapped, 25 us
F_SETPIPE_SZ = 1031  # fcntl(2), Linux


class LocalWorker:
    """See the module. Until `close_childs_ends` it also holds the ends that the process is to inherit."""

    child: Child

    def __init__(self, worker: int, channel: TaskChannel, *, portable: bool = False) -> None:
        self.id = worker
        self.channel = channel
        self.known: set[int] = set()  # jobs whose function it has
        self.sent: dict[int, tuple[int, int]] = {}  # packets it holds: seq -> job, offset of the block or -1
        self.last_words = ""  # why its initializer failed
        self._told = (0, 0)  # seq and end index of the last answer that came by the pipe
        self._partial = bytearray()  # the beginning of a frame
        self._open: list[int] = [channel.reader, *channel.fds()]
        self._tasks = channel.fds()
        try:
            self.results, self.result_writer = os.pipe()
            self._open += (self.results, self.result_writer)
            self.page_fd = anonymous_file("procflow-status", portable=portable)
            self._open.append(self.page_fd)
            os.ftruncate(self.page_fd, PAGE_SIZE)
            self._page, self._log = open_page(self.page_fd)
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
                data = os.read(self.results, READ_MAX)
            except BlockingIOError:
                return True
            if not data:
                return False
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
            elif kind == READY:
                reports.append(("ready", self.id))
            elif kind == INIT_FAILED:
                self.last_words = bytes(data[body:at]).decode("utf-8", "replace")
        return at

    def _parse_answer(self, data: bytes | bytearray, at: int, end: int, reports: list[Report]) -> None:
        seq, first, seconds, final = ANSWER_HEADER.unpack_from(data, at)
        segments = _parse_segments(data, at + ANSWER_HEADER.size, end)
        if segments and segments[0][0] == SPLIT:
            reports.append(("split", self.id, seq))
            return
        self._told = (seq, first + sum([items for _, items, _ in segments]))
        reports.append(("answer", self.id, seq, seconds, bool(final), segments))

    def salvage(self, reports: list[Report]) -> None:
        """The process is dead: report results that it had, but had not written."""
        begun, first, logged = self._page[BEGUN], self._page[FIRST], self._page[LOGGED]
        seq, told = self._told
        if begun not in self.sent or not 0 < logged <= LOG_SIZE or (begun == seq and first < told):
            return
        segments = _parse_segments(bytes(self._log[:logged]), 0, logged)
        if segments and segments[0][0] != SPLIT:
            reports.append(("answer", self.id, begun, 0.0, False, segments))

    def status(self) -> tuple[int, int | None, int]:
        """Return seq of the packet begun last, the item it runs (None: none), how many items may have begun."""
        item = self._page[ITEM]
        return self._page[BEGUN], None if item == NOTHING else item, max(1, self._page[WIDTH])

    def close_childs_ends(self) -> None:
        """The process has been started, and has these."""
        for fd in (self.channel.reader, self.result_writer, self.page_fd):
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


def _parse_segments(data: bytes | bytearray, at: int, end: int) -> list[Segment]:
    segments: list[Segment] = []
    unpack, size = SEGMENT.unpack_from, SEGMENT.size
    while at < end:
        kind, items, nbytes = unpack(data, at)
        at += size
        segments.append((kind, items, bytes(data[at : at + nbytes])))
        at += nbytes
    return segments
