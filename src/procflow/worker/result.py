"""The result of one Process, in an anonymous file: the child writes it before it ends, the parent maps it afterwards.

    kind | padding | pieces in one block, see wire/pieces.py: the pickle, then its buffers

R1  The kind is written last. A child that dies while it writes has given no result, never half of one.
R2  Only the process that was launched writes, and only to the file that it was given: not a fork of it that comes back
    from the target as well, and not when the target has closed all descriptors and opened others.
R3  Nothing that the result does while it is pickled changes how the process ends.
"""

from __future__ import annotations

import os

from procflow.start.main_module import HOME
from procflow.wire.pieces import ALIGNMENT, Pieces, lay_out, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    File = tuple[int, int, int]  # fd, inode, pid of the process that may write

__all__ = ["NOTHING", "Raised", "Refused", "Value", "keep_failure", "keep_value", "read_result"]

NOTHING, _NONE, _VALUE, _FAILURE, _REFUSED = b"\0", b"N", b"V", b"F", b"R"
_BODY = ALIGNMENT  # where the pieces begin, so that theirs is kept


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
    from procflow.wire.pickling import pack

    try:
        packed = pack(value, to=HOME)
        _write(file[0], _VALUE, Pieces([packed]) if isinstance(packed, bytes) else packed)
    except Exception as refusal:  # noqa: BLE001 - the value's own reduction: anything may be raised
        from procflow.shown import told
        from procflow.start.culprit import path_to_culprit

        culprit = path_to_culprit(value, "result", pack)
        where = f" (it is {culprit})" if culprit != "result" else ""
        why = f"{type(value).__qualname__}: {told(refusal)}{where}"
        _write(file[0], _REFUSED, Pieces([why.encode(errors="replace")]))


def keep_failure(file: File, error: BaseException) -> None:
    """Write what the target raised."""
    if _is_ours(file):
        from procflow.worker.failure import pack_failure

        _write(file[0], _FAILURE, Pieces([pack_failure(error, skip="procflow")]))


def _is_ours(file: File) -> bool:
    fd, inode, pid = file
    try:
        return os.getpid() == pid and os.fstat(fd).st_ino == inode
    except OSError:
        return False


def _write(fd: int, kind: bytes, pieces: Pieces) -> None:
    places, _ = lay_out(pieces.lengths(), one_block=True)
    for _, offset, part in pieces.spread(places):
        done = 0
        while done < len(part):
            done += os.pwrite(fd, memoryview(part)[done:], _BODY + offset + done)
    os.pwrite(fd, kind, 0)


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
    stream, *buffers = split(memoryview(mapped)[_BODY:])
    if kind == _REFUSED:
        return Refused(bytes(stream).decode())
    if kind == _FAILURE:
        from procflow.worker.failure import unpack_failure

        return Raised(unpack_failure(bytes(stream)))
    from procflow.wire.pickling import loads

    return Value(loads(stream, buffers=buffers))
