"""Enclosure: a big message in an anonymous file, whose descriptor goes over a socket with the message.

    sender     writes the pieces into a new file, sends its descriptor (SCM_RIGHTS, unix(7)), closes its own
    kernel     holds the file as long as the message is on its way, and drops it with a socket that nobody reads
    receiver   maps the file for itself and unpickles from there: arrays are views of that mapping

So what is big is copied once, into the file; through a socket or pipe it is copied twice, in hundreds of steps.

E1  The file has no name, and no other process has it when the receiver maps it: what it gets is its own, and writable.
E2  The mapping is private: after a fork, neither process sees what the other one writes into an array.
E3  The mapping lives as long as something can see it, and holds no descriptor (on Linux; see `views`).
E4  What the file says of itself is believed only within the size that it has.
"""

from __future__ import annotations

import mmap
import os
import pickle
from itertools import pairwise
from struct import Struct
from struct import error as struct_error

from procflow import portable
from procflow.errors import ProtocolError
from procflow.start.owned import close, opening, own
from procflow.start.spool import anonymous_file
from procflow.wire.blocks import can_map
from procflow.wire.pieces import lay_out, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from procflow.wire.pieces import Pieces

__all__ = ["Enclosure", "enclose"]

_LENGTH = Struct("<Q")


def enclose(pieces: Pieces) -> tuple[int, int] | None:
    """Write the pieces into a file; return its descriptor, which is `owned`, and its size. None: there is no room."""
    places, sizes = lay_out(pieces.lengths(), one_block=True)
    try:
        with opening:
            fd = own(anonymous_file("procflow-message", portable=portable.asked_for()))
    except OSError:
        return None
    try:
        for _, offset, part in pieces.spread(places):
            _write(fd, part, offset)
        if os.fstat(fd).st_size < sizes[0]:  # the last piece is empty
            os.ftruncate(fd, sizes[0])
    except OSError:  # the disk or the memory is full, or a limit is met
        close(fd)
        return None
    except BaseException:
        close(fd)
        raise
    return fd, sizes[0]


def _write(fd: int, part: bytes | memoryview, offset: int) -> None:
    view = memoryview(part)
    while view:
        done = os.pwrite(fd, view, offset)
        view = view[done:]
        offset += done


class Enclosure:
    """A message that came in a file. `load` and `in_line` give what is in it, and close the file."""

    __slots__ = ("_fd", "nbytes")

    def __init__(self, fd: int, nbytes: int) -> None:
        """`fd` is `owned`, and this object's from now on."""
        self._fd = fd
        self.nbytes = nbytes

    def __len__(self) -> int:
        return self.nbytes

    def load(self) -> Any:
        """Unpickle it."""
        stream, *buffers = self._pieces()
        return pickle.loads(stream, buffers=buffers)

    def in_line(self) -> bytes:
        """Return it as one pickle with all buffers in the stream, as `pickle.dumps` makes it; nothing is unpickled."""
        from pickletools import genops

        stream, *buffers = self._pieces()
        waiting = iter(buffers)
        out = bytearray()
        ops = [(op.name, at) for op, _, at in genops(bytes(stream))]
        for (name, at), (following, end) in pairwise([*ops, ("", len(stream))]):
            if name == "NEXT_BUFFER":
                buffer = next(waiting)
                out += pickle.BINBYTES8 if following == "READONLY_BUFFER" else pickle.BYTEARRAY8
                out += _LENGTH.pack(len(buffer))
                out += buffer
            elif name not in ("READONLY_BUFFER", "FRAME"):  # a frame's length no longer holds; it may be left out
                out += stream[at:end]
        return bytes(out)

    def drop(self) -> None:
        """Nobody will have it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            close(fd)

    def _pieces(self) -> list[memoryview]:
        try:
            if os.fstat(self._fd).st_size < self.nbytes:
                raise ProtocolError(f"a message of {self.nbytes} bytes came in a file that has fewer")
            view = _map(self._fd, self.nbytes)
        finally:
            self.drop()
        try:
            return split(view)
        except (ValueError, struct_error) as error:
            raise ProtocolError(f"a message came in a file whose table is garbage: {error}") from None

    def __del__(self) -> None:
        self.drop()


def _map(fd: int, nbytes: int) -> memoryview:
    """Map the file, privately (E2)."""
    if can_map() and not portable.asked_for():
        from procflow.wire.views import map_private

        return map_private(fd, nbytes)
    return memoryview(mmap.mmap(fd, nbytes, access=mmap.ACCESS_COPY))
