"""The result of one Process, in an anonymous file: the child writes it before it ends, the parent maps it afterwards.

    kind | padding to 8 | number of parts | length of each | the parts, each aligned: the pickle, then its buffers

R1  The kind is written last. A child that dies while it writes has given no result, never half of one.
R2  Only the process that was launched writes, and only to the file that it was given: not a fork of it that comes back
    from the target as well, and not when the target has closed all descriptors and opened others.
R3  Nothing that the result does while it is pickled changes how the process ends.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    File = tuple[int, int, int]  # fd, inode, pid of the process that may write

__all__ = ["NOTHING", "Raised", "Refused", "Value", "keep_failure", "keep_value", "read_result"]

NOTHING, _NONE, _VALUE, _FAILURE, _REFUSED = b"\0", b"N", b"V", b"F", b"R"
_ALIGNMENT = 64  # what numpy likes


class Value:
    """What the target returned."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


class Raised:
    """What the target raised."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Refused:
    """The target returned something that can't be pickled; `why` says so."""

    __slots__ = ("why",)

    def __init__(self, why: str) -> None:
        self.why = why


# ---- in the child


def keep_value(file: File, value: object) -> None:
    """Write what the target returned."""
    if not _is_ours(file):
        return
    if value is None:
        os.pwrite(file[0], _NONE, 0)
        return
    try:
        from procflow.wire.pickling import dumps_with_buffers

        data, buffers = dumps_with_buffers(value)
        _write(file[0], _VALUE, [data, *buffers])
    except Exception as refusal:  # noqa: BLE001 - the value's own reduction: anything may be raised
        from procflow.wire.shown import told

        _write(file[0], _REFUSED, [f"{type(value).__qualname__}: {told(refusal)}".encode(errors="replace")])


def keep_failure(file: File, error: BaseException) -> None:
    """Write what the target raised."""
    if _is_ours(file):
        from procflow.worker.failure import pack_failure

        _write(file[0], _FAILURE, [pack_failure(error, skip="procflow")])


def _is_ours(file: File) -> bool:
    fd, inode, pid = file
    try:
        return os.getpid() == pid and os.fstat(fd).st_ino == inode
    except OSError:
        return False


def _write(fd: int, kind: bytes, parts: list[Any]) -> None:
    views = [memoryview(part).cast("B") for part in parts]
    numbers = [len(views), *(view.nbytes for view in views)]
    os.pwrite(fd, b"".join(number.to_bytes(8, "little") for number in numbers), 8)
    offset = 8 + 8 * len(numbers)
    for view in views:
        offset, done = _aligned(offset), 0
        while done < view.nbytes:
            done += os.pwrite(fd, view[done:], offset + done)
        offset += done
    os.pwrite(fd, kind, 0)


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


# ---- in the parent


def read_result(fd: int) -> Value | Raised | Refused | None:
    """Read what the child has written; None if it ended before it had a result."""
    kind = os.pread(fd, 1, 0)
    if kind in (b"", NOTHING):
        return None
    if kind == _NONE:
        return Value(None)
    import mmap

    # Private and writable: arrays in the result are views of it, the caller's own, and nothing is copied.
    mapped = mmap.mmap(fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    parts = _parts(memoryview(mapped))
    if kind == _REFUSED:
        return Refused(bytes(parts[0]).decode())
    if kind == _FAILURE:
        from procflow.worker.failure import unpack_failure

        return Raised(unpack_failure(bytes(parts[0])))
    from procflow.wire.pickling import loads

    return Value(loads(parts[0], buffers=parts[1:]))


def _parts(view: memoryview) -> list[memoryview]:
    count = int.from_bytes(view[8:16], "little")
    offset = 16 + 8 * count
    parts: list[memoryview] = []
    for place in range(16, offset, 8):
        start = _aligned(offset)
        offset = start + int.from_bytes(view[place : place + 8], "little")
        parts.append(view[start:offset])
    return parts
