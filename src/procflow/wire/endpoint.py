"""Endpoint: one descriptor of a pipe or socket, used by any number of threads, and closed exactly once.

    OPEN -> CLOSED      by close(); the descriptor itself is closed once no thread is inside a call on it

N1  At most one thread reads and one writes, whatever threads call: messages never mix, none is read by two.
N2  A descriptor number is given back only when no call uses it, so no call ever reads a stranger's descriptor.
N3  After a fork, the child's copy starts with turns of its own, and knows nothing of its parent's children.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import weakref

from procflow.errors import ProtocolError
from procflow.start.owned import opening
from procflow.wire.peers import End, forget_parents_children
from procflow.wire.stream import MessageTooLong, Stream
from procflow.wire.turn import Turn
from procflow.wire.waiting import Waiting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from procflow.wire.enclosure import Enclosure
    from procflow.wire.peers import Launched
    from procflow.wire.windows import WindowsStream

__all__ = ["Endpoint", "open_pair"]

_alive: weakref.WeakSet[Endpoint] = weakref.WeakSet()  # for the fork hook alone


class Endpoint:
    """A descriptor that carries messages; `handle` is None once it is closed.

    `encloses`: what is big may be sent in a file of its own, as this is a socket, and the other end one of these, too.
    """

    __slots__ = (
        "__weakref__",
        "_partner",
        "_receiving",
        "_sending",
        "_stream",
        "encloses",
        "handle",
        "own",
        "readable",
        "writable",
    )

    def __init__(self, handle: int, readable: bool, writable: bool, *, encloses: bool = False) -> None:
        self.encloses = encloses
        self._stream: Stream | WindowsStream | None = _open_stream(handle, readable, writable)
        self.handle: int | None = handle
        self.readable = readable
        self.writable = writable
        self.own = End()  # what this process has done with this end: the other end's stream looks at it
        self._partner: weakref.ref[Endpoint] | None = None
        self._sending = Turn()
        self._receiving = Turn()
        _alive.add(self)

    def pair(self, other: Endpoint) -> None:
        """Note that `other` is the other end, made by this process."""
        self._partner = weakref.ref(other)
        if self._stream is not None:
            self._stream.peer = other.own

    @property
    def partner(self) -> Endpoint | None:
        """The other end, if this process, or the one that forked it, made both and still has it."""
        return None if self._partner is None else self._partner()

    def number(self) -> int:
        """Return the descriptor."""
        if self.handle is None:
            raise OSError("handle is closed")
        return self.handle

    def check_readable(self) -> None:
        """Raise OSError if the endpoint is closed, or not for reading."""
        if self.handle is None:
            raise OSError("handle is closed")
        if not self.readable:
            raise OSError("connection is write-only")

    def check_writable(self) -> None:
        """Raise OSError if the endpoint is closed, or not for writing."""
        if self.handle is None:
            raise OSError("handle is closed")
        if not self.writable:
            raise OSError("connection is read-only")

    # ---- calls that use the descriptor

    def write(self, payload: bytes | memoryview) -> None:
        """Write one message, whole."""
        self.own.used = True
        turn = self._sending
        turn.enter()
        try:
            self._opened().write(payload)
        finally:
            turn.leave()
            if self.handle is None:
                self._release()

    def write_enclosed(self, fd: int, nbytes: int) -> None:
        """Write one message, which is in this file."""
        self.own.used = True
        turn = self._sending
        turn.enter()
        try:
            stream = self._opened()
            assert isinstance(stream, Stream), "only a Stream encloses"
            stream.write_enclosed(fd, nbytes)
        finally:
            turn.leave()
            if self.handle is None:
                self._release()

    def read(self, maxlength: int | None, timeout: float | None) -> bytes | Enclosure:
        """Read one message: its payload, or the file that it came in."""
        self.check_readable()
        self.own.used = True
        deadline = None if timeout is None else time.monotonic() + timeout
        turn = self._receiving
        turn.enter(deadline)
        try:
            return self._opened().read(maxlength, deadline)
        except MessageTooLong:
            self._end_reading()
            raise OSError("bad message length") from None
        except ProtocolError:
            self._end_reading()
            raise
        finally:
            turn.leave()
            if self.handle is None:
                self._release()

    def read_into(self, target: memoryview) -> int | bytes:
        """Read one message into `target` and return its size; the message itself if it doesn't fit."""
        self.own.used = True
        self._receiving.enter()
        try:
            return self._opened().read_into(target)
        except ProtocolError:
            self._end_reading()
            raise
        finally:
            self._receiving.leave()
            if self.handle is None:
                self._release()

    def wait_readable(self, timeout: float | None) -> bool:
        """Wait until there is something to read: a message, a part of one, or the end."""
        self.own.used = True
        return self._opened().wait_readable(None if timeout is None else time.monotonic() + timeout)

    def waiting(self) -> Waiting:
        """Return what `wait_any` polls."""
        self.own.used = True
        stream = self._opened()
        return Waiting(self.number(), stream.watched(), ready=stream.complete)

    @property
    def begun(self) -> bool:
        """Whether a message has come in part."""
        return self._stream is not None and self._stream.begun

    def native(self) -> object:
        """Return what the platform's own wait() and pickling know: the descriptor, or Windows' connection."""
        native: object = getattr(self._opened(), "native", None)
        return self.number() if native is None else native

    # ---- life

    def give(self, popen: Launched) -> None:
        """Note that a child, launched already or being launched, gets this end."""
        if self.handle is not None:
            self.own.give(popen, self.handle, writable=self.writable)

    def close(self) -> None:
        """Close the endpoint. A call that another thread has on it ends first, as it will."""
        if self.handle is not None:
            self.handle = None
            self._release()

    def _opened(self) -> Stream | WindowsStream:
        stream = self._stream
        if stream is None or self.handle is None:
            raise OSError("handle is closed")
        return stream

    def _end_reading(self) -> None:
        """The next byte is not the start of a message: as multiprocessing, stop reading, or close a one-way end."""
        if self.writable:
            self.readable = False
        else:
            self.close()

    def _release(self) -> None:
        """Close the descriptor if no thread uses it; else the one that leaves last does, by calling this."""
        if not self._sending.try_enter():
            return
        try:
            if not self._receiving.try_enter():
                return
            try:
                stream, self._stream = self._stream, None
                if stream is not None:
                    self.own.open = False
                    stream.close()
            finally:
                self._receiving.leave()
        finally:
            self._sending.leave()

    def after_fork(self) -> None:
        """In a forked child: another thread of the parent may have had a turn, and its children are not ours."""
        self._sending, self._receiving = Turn(), Turn()
        self.own = End()
        if self._stream is not None:
            self._stream.peer = None


def _open_stream(handle: int, readable: bool, writable: bool) -> Stream | WindowsStream:
    if sys.platform == "win32":
        from procflow.wire.windows import WindowsStream

        return WindowsStream(handle, readable, writable)
    return Stream(handle)


def open_pair(duplex: bool) -> tuple[Endpoint, Endpoint]:
    """Make a pipe. One way if not `duplex`: the first end is for reading, the second for writing."""
    with opening:
        return _open_pair(duplex)


def _open_pair(duplex: bool) -> tuple[Endpoint, Endpoint]:
    if sys.platform == "win32":
        from procflow.wire.windows import open_handles

        handles = open_handles(duplex)
    elif duplex:
        one, other = socket.socketpair()
        one.setblocking(True)  # whatever socket.setdefaulttimeout() says
        other.setblocking(True)
        handles = one.detach(), other.detach()
    else:
        handles = os.pipe()
    encloses = duplex and hasattr(socket, "SCM_RIGHTS")
    first = Endpoint(handles[0], True, duplex, encloses=encloses)
    second = Endpoint(handles[1], duplex, True, encloses=encloses)
    first.pair(second)
    second.pair(first)
    return first, second


def _after_fork_in_child() -> None:
    forget_parents_children()
    for endpoint in list(_alive):
        endpoint.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
