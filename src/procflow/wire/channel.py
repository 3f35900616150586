"""Task channels: a one-way pipe that carries packets from the pool to one worker.

    PacketChannel   Linux: a pipe in packet mode (O_DIRECT): one write is one read, atomically; pipe(2). The pool
                    keeps a second, non-blocking description of the read end and can take back what was not begun.
    StreamChannel   everywhere: a plain pipe, each packet after its length. Nothing can be taken back.

C1  A write never blocks: what is outstanding (`window` packets of PACKET_MAX bytes) fits into the pipe's buffer.
C2  A worker reads a packet only when it is done with the one before, so what is unread has not begun.
"""

from __future__ import annotations

import os
import sys
from struct import Struct

from procflow.wire.packets import PACKET_MAX

__all__ = ["PacketChannel", "StreamChannel", "TaskChannel", "open_channel", "packet_reader", "stream_reader"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LENGTH = Struct("<I")


class TaskChannel:
    """The pool's side; `reader` is the worker's end, to be closed here once the worker has it."""

    takes_back: bool

    def __init__(self, reader: int, writer: int) -> None:
        self.reader = reader
        self.writer = writer
        self.write: Callable[[int, bytes], int] = os.write

    def send(self, packet: bytes) -> bool:
        """Write a packet; False if it does not fit now. A worker that is gone swallows it: its sentinel will tell."""
        raise NotImplementedError

    def take_back(self) -> bytes | None:
        """Return the oldest unread packet, which the worker will now not see; None if it has read all."""
        raise NotImplementedError

    def fds(self) -> list[int]:
        """Return the descriptors of the pool's side."""
        return [self.writer]

    def close(self) -> None:
        """Close the pool's side; the worker sees the end when it has read what is there."""
        for fd in self.fds():
            os.close(fd)


class PacketChannel(TaskChannel):
    """Packet mode: see the module."""

    takes_back = True

    def __init__(self) -> None:
        reader, writer = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)
        try:
            # Opening it again gives a description of its own: O_NONBLOCK here must not make the worker's reads fail.
            # Packet mode is a property of what was written, so this one needs no O_DIRECT (open(2) refuses it on a
            # pipe).
            self._peek = os.open(f"/proc/self/fd/{reader}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            os.close(reader)
            os.close(writer)
            raise
        os.set_blocking(writer, False)
        super().__init__(reader, writer)

    def send(self, packet: bytes) -> bool:
        try:
            self.write(self.writer, packet)
        except BlockingIOError:
            return False
        return True

    def take_back(self) -> bytes | None:
        try:
            return os.read(self._peek, PACKET_MAX) or None
        except BlockingIOError:
            return None

    def fds(self) -> list[int]:
        return [self.writer, self._peek]


class StreamChannel(TaskChannel):
    """A plain pipe: see the module."""

    takes_back = False

    def __init__(self) -> None:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        super().__init__(reader, writer)

    def send(self, packet: bytes) -> bool:
        framed = _LENGTH.pack(len(packet)) + packet
        try:
            written = self.write(self.writer, framed)
        except BlockingIOError:
            return False
        except BrokenPipeError:
            return True
        if written != len(framed):  # C1 would be broken: half a packet can't be withdrawn
            raise AssertionError(f"a pipe took {written} of {len(framed)} bytes")
        return True

    def take_back(self) -> bytes | None:
        return None


def open_channel(*, portable: bool = False) -> TaskChannel:
    """Open the best channel that this system has; `portable` asks for the plain one."""
    if sys.platform == "linux" and not portable:
        try:
            return PacketChannel()
        except (FileNotFoundError, PermissionError):  # no /proc here
            pass
    return StreamChannel()


def packet_reader(fd: int) -> Callable[[], bytes]:
    """Return the worker's blocking read of one packet; empty bytes at the end."""
    read = os.read

    def read_packet() -> bytes:
        return read(fd, PACKET_MAX)

    return read_packet


def stream_reader(fd: int) -> Callable[[], bytes]:
    """Return the worker's blocking read of one packet; empty bytes at the end, which half a packet counts as."""

    def exactly(nbytes: int) -> bytes:
        data = b""
        while len(data) < nbytes:
            more = os.read(fd, nbytes - len(data))
            if not more:
                return b""
            data += more
        return data

    def read_packet() -> bytes:
        header = exactly(_LENGTH.size)
        return exactly(_LENGTH.unpack(header)[0]) if header else b""

    return read_packet
