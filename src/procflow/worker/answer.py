"""The answer to a packet: values and failures in the order of its items, logged as they come and written now and then.

    logged      each result is pickled into the status page's log at once; a write sends the log and empties it
    not logged  results are collected and pickled together by the write: a third of the cost for quick items

A1  Written and logged items follow each other without a gap, from the packet's first on.
A2  The log is emptied after it was written, never before; the pool drops what it gets twice.
A3  What is big goes into blocks of the worker's own file, and the segment says where (`blocks.py`); if there is no
    room, it goes through the pipe.
A4  Only the worker itself records and writes, not a fork of it that a task has made.
"""

from __future__ import annotations

import os
import sys
from _thread import allocate_lock
from collections import deque

from procflow.shown import told
from procflow.start.main_module import HOME
from procflow.wire.packets import (
    AGAIN,
    ANSWER,
    ANSWER_HEADER,
    FAILURE,
    FRAME,
    PIECES,
    PLACES,
    SEGMENT,
    SPLIT,
    VALUE,
    VALUES,
)
from procflow.wire.pickling import dumps, pack
from procflow.wire.pieces import OUT_OF_BAND, Pieces
from procflow.worker.attempts import Again
from procflow.worker.failure import pack_failure
from procflow.worker.status import BEGUN, FIRST, LOG_SIZE, LOGGED, NOTHING, RUNS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Store(Protocol):
        """Where big results go: `wire.blocks.Writer`, for one."""

        def store(self, pieces: Pieces) -> bytes | None:
            """Return the places, None if there is no room."""
            ...


__all__ = ["Answer", "write_aside", "write_frame"]

FLUSH = 1e-3  # seconds: results that are older are written while the packet still runs
HAND_BACK = 10e-3  # seconds: a packet that took this long returns what it has not begun, so that others can run it
SAFE = frozenset({int, float, bool, type(None), str, bytes, complex})  # these unpickle whatever happens
LARGE = 1 << 16  # bytes: from here on a part is written by itself instead of being joined with its header
SEPARATE = 4  # as many values, or fewer, are not worth pickling again to send them as one

_forks = 0  # how many forks lie between this process and the first that imported this


def _note_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def write_frame(fd: int, kind: int, *parts: bytes) -> None:
    """Write one frame whole, behind those that wait."""
    with _writing:
        while _waiting:
            _write_whole(fd, *_waiting.popleft())
        _write_whole(fd, kind, *parts)
    if _waiting:
        _write_waiting(fd)


def write_aside(fd: int, kind: int, body: bytes = b"") -> None:
    """Write a frame from any thread, or from a signal handler that has interrupted another write.

    If somebody is writing, that one goes on with it.
    """
    _waiting.append((kind, body))
    _write_waiting(fd)


_writing = allocate_lock()
_waiting: deque[tuple[int, bytes]] = deque()


def _write_waiting(fd: int) -> None:
    while _waiting and _writing.acquire(blocking=False):
        try:
            while _waiting:
                _write_whole(fd, *_waiting.popleft())
        finally:
            _writing.release()


def _write_whole(fd: int, kind: int, *parts: bytes) -> None:
    nbytes = sum(map(len, parts))
    if nbytes < LARGE:
        _write(fd, b"".join((FRAME.pack(nbytes, kind), *parts)))
        return
    _write(fd, FRAME.pack(nbytes, kind))
    for part in parts:
        _write(fd, part)


def _write(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    if written < len(data):
        view = memoryview(data)[written:]
        while view:
            view = view[os.write(fd, view) :]


class Answer:
    """One object serves all packets of a worker, one after the other.

    A task may fork, and the copy may return: it would go on as this worker, in the same pipes and the same page. So a
    copy ends (A4) before it records anything.
    """

    hand_back = HAND_BACK

    def __init__(self, out: int, page: memoryview[int], log: memoryview[int], writer: Store) -> None:
        self._out, self._page, self._log = out, page, log
        self._writer = writer
        self.followed: Callable[[], object] = _by_nothing  # whether another packet is in the worker's pipe
        self._values: list[object] = []  # since the last write, for as long as nothing but values came
        self._segments: list[bytes] = []  # not logged: what came before `_values`
        self._forks = _forks  # if there are more, this process is a fork of the worker, made by a task

    def _end_copy(self) -> None:
        _flush_output()
        os._exit(0)

    def begin(self, seq: int, start: int, now: float, *, isolate: bool, logs: bool) -> None:
        """A packet begins."""
        page = self._page
        page[LOGGED] = 0
        page[FIRST] = self._first = self._next = start
        page[RUNS] = NOTHING
        page[BEGUN] = self._seq = seq
        self._isolate, self._logs = isolate, logs
        self._began = self._since = now
        self._end = 0  # of the log
        self._values.clear()
        self._segments.clear()

    # -- results ------------------------------------------------------------------------------------------------------

    def value(self, value: object) -> None:
        """The next item returned this."""
        if self._forks != _forks:
            self._end_copy()
        if not self._logs:
            self._values.append(value)
            return
        try:
            data = pack(value, to=HOME)
        except BaseException as refusal:  # noqa: BLE001 - user code: reductions
            self._add(FAILURE, 1, pack_failure(_not_picklable(value, refusal)))
            return
        if len(self._values) == self._next - self._first:
            self._values.append(value)
        self._add(VALUE, 1, data)

    def extend(self, values: list[object]) -> None:
        """The next items returned these."""
        if self._forks != _forks:
            self._end_copy()
        if not self._logs:
            self._values.extend(values)
            return
        if len(self._values) == self._next - self._first:
            self._values.extend(values)
        self._add_values(values)

    def failure(self, error: BaseException, items: int) -> None:
        """The next item failed; with it `items` are done with."""
        if self._forks != _forks:
            self._end_copy()
        self._settle_values()
        kind = FAILURE
        if isinstance(error, Again):
            error, kind = error.error, FAILURE | AGAIN
        self._add(kind, items, pack_failure(error, skip=__package__))

    def split(self) -> None:
        """Nothing began: the items have to come one by one."""
        self._add(SPLIT, 0, b"")

    # -- writing ------------------------------------------------------------------------------------------------------

    def is_late(self, now: float) -> bool:
        """Write what is there if it is old; True if the packet took so long that the rest is to be handed back."""
        if now - self._since > FLUSH:
            # What is behind would be begun ahead of what is handed back; it may wait for that.
            if now - self._began > self.hand_back and not self.followed():
                return True
            self._flush(now, final=False)
        return False

    def finish(self, now: float) -> None:
        """Write the rest."""
        _flush_output()
        self._flush(now, final=True)

    def _flush(self, now: float, *, final: bool) -> None:
        values = self._values
        header = ANSWER_HEADER.pack(self._seq, self._first, now - self._since, final)
        if not self._logs:
            self._settle_values()
            self._send(header, *self._segments)
        elif len(values) > SEPARATE and len(values) == self._next - self._first and SAFE.issuperset(map(type, values)):
            data = dumps(values, to=HOME)
            self._send(header, SEGMENT.pack(VALUES, len(values), len(data)), data)
        else:
            self._send(header, bytes(self._log[: self._end]))
        self._since = now
        self._written()

    def _send(self, *parts: bytes) -> None:
        write_frame(self._out, ANSWER, *parts)

    def _written(self) -> None:
        """What there was is in the pipe."""
        page = self._page
        page[LOGGED] = self._end = 0
        page[FIRST] = self._first = self._next
        self._values.clear()
        self._segments.clear()

    def _add(self, kind: int, items: int, data: bytes | Pieces) -> None:
        if len(data) >= OUT_OF_BAND:
            kind, data = self._put_away(kind, data)
        header = SEGMENT.pack(kind, items, len(data))
        if not self._logs:
            self._segments += (header, data)  # type: ignore[arg-type]  # what is big was put away
            self._next += items
            return
        end = self._end + len(header) + len(data)
        if end > LOG_SIZE:
            self._add_large(header, items, data)  # type: ignore[arg-type]
            return
        log = self._log
        log[self._end : self._end + len(header)] = header
        log[self._end + len(header) : end] = data  # type: ignore[assignment]
        self._next += items
        self._end = self._page[LOGGED] = end

    def _add_large(self, header: bytes, items: int, data: bytes) -> None:
        """The log is full, or this is too large for it: write what is there, and this at once."""
        if self._end:
            self._send(ANSWER_HEADER.pack(self._seq, self._first, 0.0, False), bytes(self._log[: self._end]))
            self._written()
        self._send(ANSWER_HEADER.pack(self._seq, self._first, 0.0, False), header, data)
        self._next += items
        self._written()

    def _put_away(self, kind: int, data: bytes | Pieces) -> tuple[int, bytes]:
        """Put it into blocks; return what stands for it."""
        pieces = Pieces([data]) if isinstance(data, bytes) else data
        try:
            places = self._writer.store(pieces)
        except OSError:  # no memory, no space, a limit
            places = None
        if self._logs:
            self._values.clear()  # so that they are not pickled together: they are in the log, and this in its block
        if places is not None:
            return kind | PLACES, places
        return (kind, data) if isinstance(data, bytes) else (kind | PIECES, data.joined())

    # -- pickling -----------------------------------------------------------------------------------------------------

    def _settle_values(self) -> None:
        """Pickle the values that were collected, as something else follows them."""
        if not self._logs and self._values:
            self._add_values(self._values)
            self._values.clear()

    def _add_values(self, values: list[object]) -> None:
        if not self._isolate or SAFE.issuperset(map(type, values)):
            try:
                data = pack(values, to=HOME)
            except BaseException:  # noqa: BLE001 - user code: reductions; one by one shows which it is
                pass
            else:
                self._add(VALUES, len(values), data)
                return
        for value in values:
            try:
                data = pack(value, to=HOME)
            except BaseException as refusal:  # noqa: BLE001
                self._add(FAILURE, 1, pack_failure(_not_picklable(value, refusal)))
            else:
                self._add(VALUE, 1, data)


def _by_nothing() -> bool:
    return False


def _flush_output() -> None:
    """What a task printed is seen when it is done, not when the worker ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # no stream, or the task closed it
            pass


def _not_picklable(value: object, refusal: BaseException) -> BaseException:
    from procflow.errors import PicklingError
    from procflow.start.culprit import path_to_culprit

    culprit = path_to_culprit(value, "result", dumps)
    where = f" (It is {culprit}.)" if culprit != "result" else ""
    error = PicklingError(
        f"the task's result, a {type(value).__name__}, can't be pickled: {told(refusal)}.{where} "
        "Return plain data, or give its class a __reduce__."
    )
    error.__cause__ = refusal
    return error
