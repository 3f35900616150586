"""Stream: whole messages over a byte stream, in multiprocessing's own framing.

    length                   on the wire
    0 .. 2**31-1             '!i' length, payload
    2**31 .. 2**40           '!i' -1, '!Q' length, payload
    in a file (`enclosure`)  '!i' APART, '!Q' size of the file, '!I' n, n bytes of padding, with the first the file
    anything else            garbage: ProtocolError

The padding takes room in the socket's buffer, so that who sends faster than the other side receives has to wait, and
does not fill the memory with files. The descriptor goes with it, not with the header, which is read as any other.

S1  Nothing is read ahead: what has not been asked for stays in the kernel, where another process that shares the end,
    a copy that is sent elsewhere, and poll() find it.
S2  A message that came in part is kept until the rest comes, whatever interrupted the reader: a timeout, Ctrl-C.
S3  Memory grows with what has come, at most twofold and by GROWTH at first, never with what a header claims.
S4  A message is written whole or the stream is torn: after a write that was cut off, no other message follows it.

Callers see to it that at most one thread reads and one writes.
"""

from __future__ import annotations

import errno
import io
import os
import socket
import stat
import sys
from struct import Struct

from procflow.errors import PeerReset, ProtocolError, TimeoutError, TruncatedMessage
from procflow.start.owned import close as close_owned
from procflow.start.owned import opening, own
from procflow.wire.peers import READ, WRITE, End, Ready, wait_ready

if sys.platform != "win32":  # which has a stream of its own
    import fcntl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from procflow.wire.enclosure import Enclosure

__all__ = ["MessageTooLong", "Stream"]

SHORT = Struct("!i")
LONG = Struct("!iQ")
APART = -0x50524F43
ENCLOSED = Struct("!iQI")
FD = Struct("i")
SHORT_MAX = 2**31 - 1
LONG_MAX = 2**40

GROWTH = 2**20  # the first room for a big message; a read of more gains nothing
JOINED = 2**14  # up to here, one copy into one write is cheaper than a vector of two; measured 1.5 us against 1.8
BIG = 2**18  # from here, a larger kernel buffer pays: 64 MiB through a pipe in 75 ms instead of 140-200
PIPE_BUFFER = 2**20  # what an unprivileged process may ask for; pipe(7)
SOCKET_BUFFER = 2**22
PADDING = bytes(2**17)  # two of them fill a buffer of the usual size
ATOMIC = 4096  # PIPE_BUF: a pipe that is ready for writing takes this much without blocking


class MessageTooLong(Exception):
    """The message is longer than the caller allows; its payload has not been read."""


class Stream:
    """A descriptor of a pipe or socket that carries messages. `peer` is the other end, if this process made both."""

    __slots__ = (
        "_apart",
        "_body",
        "_enclosed",
        "_enlarged",
        "_have",
        "_head",
        "_is_socket",
        "_size",
        "_sock",
        "_torn",
        "fd",
        "peer",
    )

    def __init__(self, fd: int, peer: End | None = None) -> None:
        self.fd = fd
        self.peer = peer
        self._head = b""  # what has come of the header
        self._size = -1  # of the message that is coming; -1: not yet known
        self._body: io.BytesIO | None = None
        self._have = 0  # bytes of the payload in the body
        self._apart = -1  # size of the file that comes with the payload; -1: none does
        self._enclosed = -1  # its descriptor, once that has come; it is `owned`
        self._torn = False
        self._enlarged = False
        self._is_socket: bool | None = None
        self._sock: socket.socket | None = None

    def close(self) -> None:
        """Close the descriptor."""
        self._unwatch()
        self._reset()
        if self._sock is not None:
            self._sock.detach()
        os.close(self.fd)

    @property
    def begun(self) -> bool:
        """Whether a message has come in part."""
        return self._size >= 0 or bool(self._head)

    # ---- reading

    @property
    def complete(self) -> bool:
        """Whether a message has come whole and was not taken."""
        return self._size == self._have

    def wait_readable(self, deadline: float | None) -> bool:
        """Wait until a read would not block, be it a message, a part of one, or the end of the stream."""
        return self.complete or wait_ready(self.fd, READ, deadline, self.watched()) is not Ready.TIMEOUT

    def read(self, maxlength: int | None = None, deadline: float | None = None) -> bytes | Enclosure:
        """Return the next message: its payload, or the file that it came in.

        Raises:
            EOFError: The other end is closed or gone.
            TimeoutError: The deadline has passed; what has come of the message is kept.
            MessageTooLong: The message is longer than `maxlength`.
            ProtocolError: Garbage came.
            OSError: This process has no room for the descriptor of the file. The next message can be received.
        """
        if deadline is None and self.watched() is None and not self.begun:
            # The fast path: two reads, one object. State is stored before each read that can be interrupted.
            self._head = head = self._read(4)
            if len(head) == 4:
                (size,) = SHORT.unpack(head)
                if 0 <= size <= BIG and (maxlength is None or size <= maxlength):
                    self._size = size
                    data = self._read(size) if size else b""
                    if len(data) == size:
                        self._reset()
                        return data
                    self._keep(data)
            elif not head:
                raise EOFError
        size = self._read_header(deadline)
        if maxlength is not None and max(size, self._apart) > maxlength:
            raise MessageTooLong
        if self._apart >= 0:
            return self._read_enclosed(size, deadline)
        return self._read_body(size, deadline)

    def read_into(self, target: memoryview) -> int | bytes:
        """Read the next message into `target` and return its size; the message itself if it doesn't fit."""
        size = self._read_header(None)
        if size > target.nbytes or self._have or size <= JOINED or self._apart >= 0:
            data = self._read_body(size, None) if self._apart < 0 else self._read_enclosed(size, None).in_line()
            if len(data) > target.nbytes:
                return data
            target[: len(data)] = data
            return len(data)
        got = 0
        try:
            while got < size:
                self._await_bytes(None)
                got += self._readv(target[got:size])
        except BaseException:
            if self.begun:
                self._keep(bytes(target[:got]))
            raise
        self._reset()
        return size

    def _read_header(self, deadline: float | None) -> int:
        while self._size < 0:
            have = len(self._head)
            whole = SHORT.size
            if have >= SHORT.size:
                (size,) = SHORT.unpack_from(self._head)
                if size >= 0:
                    self._size = size
                    break
                if size not in (-1, APART):
                    self._refuse()
                whole = LONG.size if size == -1 else ENCLOSED.size
            if have == LONG.size == whole:
                size = LONG.unpack(self._head)[1]
                if not SHORT_MAX < size <= LONG_MAX:
                    self._refuse()
                self._size = size
                break
            if have == ENCLOSED.size:
                _, apart, size = ENCLOSED.unpack(self._head)
                if not (0 < apart <= LONG_MAX and 0 < size <= SOCKET_BUFFER):
                    self._refuse()
                self._size, self._apart = size, apart
                break
            self._await_bytes(deadline)
            part = self._read(whole - have)
            if not part:
                self._end_of_stream()
            self._head += part
        return self._size

    def _read_body(self, size: int, deadline: float | None) -> bytes:
        body = self._body
        if body is None:
            body = self._body = io.BytesIO()
        room = self._have
        while self._have < size:
            self._await_bytes(deadline)
            if self._have >= room:
                room = min(size, max(GROWTH, 2 * self._have))
                body.seek(room - 1)
                body.write(b"\0")
            with body.getbuffer() as view, view[self._have : room] as free:
                self._have += self._readv(free)
        self._reset()
        body.truncate(size)
        return body.getvalue()  # shares the buffer: no copy

    def _read_enclosed(self, padding: int, deadline: float | None) -> Enclosure:
        """Read the padding, and take the file that comes with it."""
        from procflow.wire.enclosure import Enclosure

        room = memoryview(bytearray(min(padding - self._have, len(PADDING))))
        while self._have < padding:
            self._await_bytes(deadline)
            free = room[: padding - self._have]
            self._have += self._readv(free) if self._enclosed >= 0 or self._have else self._receive_fd(free)
        fd, nbytes = self._enclosed, self._apart
        self._enclosed = -1
        self._reset()
        if fd < 0:
            raise OSError(
                errno.EMFILE,
                f"a message of {nbytes} bytes came in a file, and its descriptor was lost: this process has too many "
                "open already, most likely. The message can't be had any more; the next one can",
            )
        return Enclosure(fd, nbytes)

    def _receive_fd(self, free: memoryview) -> int:
        """Read as `_readv`, and keep the descriptor that comes with what is read."""
        flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
        with opening:  # it does not wait: something is there
            try:
                got, extra, _, _ = self._unblocked().recvmsg_into(
                    [free], socket.CMSG_SPACE(FD.size), flags | socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                got, extra = -1, []
            except ConnectionResetError as error:
                self._reset()
                raise PeerReset(error.errno, "the peer closed the connection with messages unread") from None
            for level, kind, data in extra:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS and len(data) == FD.size:
                    (self._enclosed,) = FD.unpack(data)
                    own(self._enclosed)
                    if not flags:
                        os.set_inheritable(self._enclosed, False)
        if not got:
            self._end_of_stream()
        if got < 0:
            wait_ready(self.fd, READ, None, self.watched())
            return 0
        return got

    def _keep(self, part: bytes) -> None:
        """Keep the first part of the message's payload for later."""
        if part:
            self._body = io.BytesIO(part)
            self._have = len(part)

    def _reset(self) -> None:
        self._head = b""
        self._size = -1
        self._have = 0
        self._body = None
        self._apart = -1
        fd, self._enclosed = self._enclosed, -1
        if fd >= 0:
            close_owned(fd)

    def _read(self, nbytes: int) -> bytes:
        try:
            return os.read(self.fd, nbytes)
        except ConnectionResetError as error:
            self._reset()
            raise PeerReset(error.errno, "the peer closed the connection with messages unread") from None

    def _readv(self, free: memoryview) -> int:
        try:
            got = os.readv(self.fd, [free])
        except ConnectionResetError as error:
            self._reset()
            raise PeerReset(error.errno, "the peer closed the connection with messages unread") from None
        if not got:
            self._end_of_stream()
        return got

    def _await_bytes(self, deadline: float | None) -> None:
        peer = self.watched()
        if deadline is None and peer is None:
            return  # the read itself waits
        ready = wait_ready(self.fd, READ, deadline, peer)
        if ready is Ready.GONE:
            self._end_of_stream()
        if ready is Ready.TIMEOUT:
            part = " (a part of it has come, and is kept)" if self.begun else ""
            raise TimeoutError(f"no message came within the time given{part}")

    def watched(self) -> End | None:
        """Return the other end, as long as this process knows more of it than the kernel tells."""
        peer = self.peer
        if peer is not None and peer.settled:
            self._unwatch()
            return None
        return peer

    def _unwatch(self) -> None:
        peer, self.peer = self.peer, None
        if peer is not None:
            peer.abandon()

    def _end_of_stream(self) -> NoReturn:
        if not self.begun:
            raise EOFError
        have, size = self._have, self._size
        self._reset()
        of = f"{have} of {size} bytes had come" if size >= 0 else "not even its length had come"
        raise TruncatedMessage(
            f"got end of file during message: {of}. The process at the other end was probably killed while sending it"
        )

    def _refuse(self) -> NoReturn:
        head = self._head
        self._reset()
        raise ProtocolError(
            f"garbage instead of a message: its length reads {head!r}. Did something other than a Connection write to "
            "this descriptor, or two processes at once to the same end?"
        )

    # ---- writing

    def write(self, payload: bytes | memoryview) -> None:
        """Write one message; `payload` is bytes or a view of single bytes.

        Raises:
            BrokenPipeError: The other end is closed or gone.
        """
        size = len(payload)
        if size > LONG_MAX:
            raise ValueError(f"a message of {size} bytes is too long: 1 TiB at most")
        self._check_whole()
        header = SHORT.pack(size) if size <= SHORT_MAX else LONG.pack(-1, size)
        if size >= BIG and not self._enlarged:
            self._enlarge()
        peer = self.watched()
        if size <= JOINED:
            data = b"".join((header, payload))
            written = os.write(self.fd, data) if peer is None else 0
            if written != len(data):
                self._write_all([memoryview(data)[written:]], peer, begun=written > 0)
        else:
            self._write_all([header, payload], peer, begun=False)

    def write_enclosed(self, fd: int, nbytes: int) -> None:
        """Write one message that is in a file of so many bytes. The descriptor remains the caller's."""
        self._check_whole()
        padding = memoryview(bytes(SOCKET_BUFFER // 2)) if self._enlarged else memoryview(PADDING)
        self._write_all([ENCLOSED.pack(APART, nbytes, len(padding)), padding], self.watched(), begun=False, enclosed=fd)

    def _check_whole(self) -> None:
        if self._torn:
            raise BrokenPipeError(errno.EPIPE, "an earlier message was cut off in the middle, so none can follow it")

    def _write_all(self, parts: list[bytes | memoryview], peer: End | None, *, begun: bool, enclosed: int = -1) -> None:
        """Write the parts; `enclosed` is a descriptor that goes with the last one's first byte."""
        blocking = peer is None or (sum(map(len, parts)) <= ATOMIC and not self._socket())
        fd = -1 if blocking or self._socket() else self._open_nonblocking()
        try:
            while parts:
                if peer is not None and wait_ready(self.fd, WRITE, None, peer) is Ready.GONE:
                    raise BrokenPipeError(errno.EPIPE, "the process that was given the other end has ended")
                self._torn = True  # until the message is whole: Ctrl-C in here leaves an unknown part of it written
                try:
                    if enclosed >= 0:
                        count = self._send_enclosed(parts, enclosed, blocking=blocking)
                    elif blocking:
                        count = os.writev(self.fd, parts)
                    elif fd >= 0:
                        count = os.writev(fd, parts)
                    else:
                        count = self._unblocked().sendmsg(parts, [], socket.MSG_DONTWAIT)
                except OSError as error:
                    self._torn = begun
                    if isinstance(error, BlockingIOError) and not blocking:
                        continue
                    raise
                if enclosed >= 0 and len(parts) == 1 and count:
                    enclosed = -1
                parts = _unwritten(parts, count)
                begun = True
            self._torn = False
        finally:
            if fd >= 0:
                os.close(fd)

    def _send_enclosed(self, parts: list[bytes | memoryview], fd: int, *, blocking: bool) -> int:
        flags = 0 if blocking else socket.MSG_DONTWAIT
        if len(parts) > 1:
            return self._unblocked().sendmsg(parts[:1], [], flags)
        return self._unblocked().sendmsg(parts, [(socket.SOL_SOCKET, socket.SCM_RIGHTS, FD.pack(fd))], flags)

    def _open_nonblocking(self) -> int:
        """Open the pipe again, not blocking: O_NONBLOCK on our own description would be seen by all who share it."""
        return os.open(f"/proc/self/fd/{self.fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def _socket(self) -> bool:
        if self._is_socket is None:
            self._is_socket = stat.S_ISSOCK(os.fstat(self.fd).st_mode)
        return self._is_socket

    def _unblocked(self) -> socket.socket:
        """Return a socket object of our descriptor, whose calls take flags; `close` takes the descriptor back."""
        if self._sock is None:
            self._sock = socket.socket(fileno=self.fd)
        return self._sock

    def _enlarge(self) -> None:
        """Give the kernel's buffer more room, at the first message that gains by it; small ones don't pay for it."""
        self._enlarged = True
        try:
            if self._socket():
                if self._unblocked().family == getattr(socket, "AF_UNIX", None):
                    self._unblocked().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
            elif sys.platform == "linux":
                fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, PIPE_BUFFER)
        except OSError:
            pass  # the user's share of pipe buffers is used up, or it is neither a pipe nor a socket: it works as it is


def _unwritten(parts: list[bytes | memoryview], count: int) -> list[bytes | memoryview]:
    """Return what is left to write after `count` bytes."""
    rest: list[bytes | memoryview] = []
    for part in parts:
        if count >= len(part):
            count -= len(part)
        else:
            rest.append(memoryview(part)[count:])
            count = 0
    return rest
