"""Packets as bytes, and answers from bytes: what every engine has in common whose workers are other processes."""

from __future__ import annotations

from procflow.shown import shown
from procflow.start.interrupted import of_a_signal
from procflow.start.main_module import CHILD
from procflow.wire.packets import CALL_HEADER, ISOLATE, SEGMENT, TASK, TIMED
from procflow.wire.pickling import dumps, not_picklable
from procflow.wire.pieces import Pieces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from procflow.engines.base import Segment, Work
    from procflow.scheduling.scheduler import Packet

__all__ = ["join_calls", "pack_function", "pack_header", "parse_segments"]


def pack_function(function: Callable[..., object], *, to: int = CHILD) -> bytes:
    """Pickle a job's function.

    Raises:
        PicklingError: It refuses.
    """
    try:
        return dumps(function, to=to)
    except BaseException as refusal:
        if of_a_signal(refusal):
            raise
        raise not_picklable(f"the function {shown(function)}", refusal, {"func": function}) from refusal


def pack_header(work: Work, packet: Packet, oldest: int, function_nbytes: int, flags: int) -> bytes:
    """Make the beginning of a packet."""
    job = packet.job
    flags |= (ISOLATE if work.isolate else 0) | (TIMED if job.limits.timeout else 0)
    grain = 0 if job.adaptive else job.grain
    count = packet.stop - packet.start
    return TASK.pack(
        packet.seq, job.id, oldest, packet.start, count, grain, work.kind, flags, function_nbytes, packet.attempt
    )


def join_calls(calls: list[bytes | Pieces]) -> bytes | Pieces:
    """Put separate calls one after the other."""
    header = CALL_HEADER.pack
    if len(calls) == 1 and isinstance(calls[0], bytes):
        return header(len(calls[0]), 0) + calls[0]
    try:
        return b"".join([part for call in calls for part in (header(len(call), 0), call)])  # type: ignore[misc]
    except TypeError:  # not all are bytes
        pass
    parts: list[bytes | memoryview] = []
    buffers: list[memoryview] = []
    for call in calls:
        pieces = Pieces([call]) if isinstance(call, bytes) else call
        parts += (header(pieces.stream_nbytes, len(pieces.buffers)), *pieces.parts)
        buffers += pieces.buffers
    return Pieces(parts, buffers)


def parse_segments(data: bytes | bytearray, at: int, end: int) -> list[Segment]:
    """Return what an answer says of its items."""
    segments: list[Segment] = []
    unpack, size = SEGMENT.unpack_from, SEGMENT.size
    while at < end:
        kind, items, nbytes = unpack(data, at)
        at += size
        segments.append((kind, items, bytes(data[at : at + nbytes])))
        at += nbytes
    return segments
