"""Blocks: room for what is too big for a packet, in one anonymous file that the pool and its workers share.

The pool allocates and writes; a worker reads. Sizes are powers of two, and free blocks are used again, the last freed
first, while their pages are still in the cache: a fresh page costs 0.7 us per KiB, a warm one nothing.

B1  A block belongs to one packet from `store` until `free`; the pool frees it when the packet is answered, taken back
    or its worker is dead.
B2  The file has no name: it is gone with the last process that has it open, however that ended.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Blocks", "anonymous_file", "read_block"]

SMALLEST = 12  # 4 KiB
WARM = 64 * 2**20  # bytes of free blocks that are kept; above, the end of the file is given back


def anonymous_file(name: str, *, portable: bool = False) -> int:
    """Open an anonymous file: a memfd where there is one, else a temporary file whose name is removed at once."""
    if hasattr(os, "memfd_create") and not portable:
        return os.memfd_create(name, os.MFD_CLOEXEC)
    import tempfile

    fd, path = tempfile.mkstemp(prefix=f"{name}-")
    os.unlink(path)
    return fd


class Blocks:
    """The pool's side: allocation. The caller holds the pool's lock for all but `write`."""

    def __init__(self, *, portable: bool = False) -> None:
        self.fd = anonymous_file("procflow-blocks", portable=portable)
        self._end = 0
        self._free: dict[int, list[int]] = {}  # size as a power of two -> offsets
        self._used: dict[int, int] = {}  # offset -> size as a power of two

    def allocate(self, nbytes: int) -> int:
        """Return the offset of a block of at least `nbytes`."""
        order = max(SMALLEST, (nbytes - 1).bit_length())
        free = self._free.get(order)
        if free:
            offset = free.pop()
        else:
            offset = self._end
            self._end = offset + (1 << order)
        self._used[offset] = order
        return offset

    def write(self, offset: int, parts: Sequence[bytes | memoryview]) -> None:
        """Write the parts one after the other; they fit into the block."""
        for part in parts:
            view = memoryview(part)
            while view:
                written = os.pwrite(self.fd, view, offset)
                offset += written
                view = view[written:]

    def free(self, offset: int) -> None:
        """Take the block back."""
        order = self._used.pop(offset)
        self._free.setdefault(order, []).append(offset)
        if not self._used and self._end > WARM:
            self._free.clear()
            self._end = 0
            os.ftruncate(self.fd, 0)

    @property
    def used(self) -> int:
        """How many blocks are in use."""
        return len(self._used)

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)


def read_block(fd: int, offset: int, nbytes: int) -> bytearray:
    """Read a block whole, in the worker."""
    data = bytearray(nbytes)
    view = memoryview(data)
    while view:
        got = os.preadv(fd, [view], offset)
        if not got:
            raise EOFError(f"a block of {nbytes} bytes ends {len(view)} bytes early")
        offset += got
        view = view[got:]
    return data
