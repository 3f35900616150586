"""Bytes handed to a child without ever blocking the parent: an anonymous file that the child reads at leisure.

A pipe would block once 64 KiB are in it and nobody reads: while the child still imports, or for ever if it died.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Buffer = bytes | bytearray | memoryview[int]


def spool(buffers: Iterable[Buffer]) -> int:
    """Write the buffers one after another to a new anonymous file; give its fd, positioned at the start."""
    fd = anonymous_file("procflow")
    try:
        for buffer in buffers:
            view = memoryview(buffer).cast("B")
            while view.nbytes:
                view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_rest(fd: int, offset: int) -> bytes:
    """Read what follows `offset`, whatever the position of the fd is."""
    end = os.fstat(fd).st_size
    chunks: list[bytes] = []
    while offset < end:  # one read gives 2 GiB at the most
        chunks.append(os.pread(fd, end - offset, offset))
        offset += len(chunks[-1])
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def anonymous_file(name: str, *, portable: bool = False) -> int:
    """Open an anonymous file: a memfd where there is one, else a temporary file whose name is removed at once."""
    if hasattr(os, "memfd_create") and not portable:
        return os.memfd_create(name, os.MFD_CLOEXEC)
    import tempfile

    fd, path = tempfile.mkstemp(prefix=f"{name}-")
    os.unlink(path)
    return fd
