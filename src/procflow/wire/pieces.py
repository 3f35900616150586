"""Pieces: a pickle that is too big to be copied about: its stream and the buffers beside it, by reference.

As bytes, wherever they stand (in blocks of shared memory, or one after the other in a pipe):

    u32 pieces | u64 length of each | padding | stream | padding | buffer | padding | buffer ...

They go into one block until that has a MiB, then into the next: a large buffer has a block of its own, which lives as
long as that one array does, and many small ones share. `lay_out` decides this from the lengths alone, on both sides.
"""

from __future__ import annotations

from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["ALIGNMENT", "ENCLOSED_LEAST", "OUT_OF_BAND", "Loose", "Pieces", "lay_out", "read_lengths", "split"]

OUT_OF_BAND = 1 << 15  # bytes: a smaller buffer, or a smaller pickle, is copied sooner than a block is found for it
ENCLOSED_LEAST = 1 << 18  # the same for a file of its own, see `enclosure`
SHARED_BLOCK = 1 << 20
MOST_BLOCKS = 64  # about; their places have to fit into a packet
ALIGNMENT = 64  # a cache line, and what numpy's own arrays have
_COUNT = Struct("<I")
_LENGTH = 8


class Pieces:
    """See the module. `parts` make up the stream."""

    __slots__ = ("buffers", "parts", "stream_nbytes")

    def __init__(self, parts: Sequence[bytes | memoryview], buffers: Sequence[memoryview] = ()) -> None:
        self.parts = parts
        self.buffers = buffers
        self.stream_nbytes = sum(map(len, parts))

    def __len__(self) -> int:
        return self.stream_nbytes + sum([len(buffer) for buffer in self.buffers])

    def lengths(self) -> list[int]:
        """Return the length of each piece, the stream first."""
        return [self.stream_nbytes, *map(len, self.buffers)]

    def spread(self, places: list[tuple[int, int]]) -> Iterator[tuple[int, int, bytes | memoryview]]:
        """Yield what is to be written: number of the block, offset in it, bytes."""
        lengths = self.lengths()
        yield 0, 0, _COUNT.pack(len(lengths)) + b"".join([n.to_bytes(_LENGTH, "little") for n in lengths])
        block, offset = places[0]
        for part in self.parts:
            yield block, offset, part
            offset += len(part)
        for (block, offset), buffer in zip(places[1:], self.buffers, strict=True):
            yield block, offset, buffer

    def frozen(self) -> Pieces:
        """Return pieces that may be kept: a view of a bytearray would forbid its owner to resize it meanwhile."""
        return Pieces([part if isinstance(part, bytes) else bytes(part) for part in self.parts], self.buffers)

    def joined(self) -> bytes:
        """Return all in one, for a pipe."""
        places, sizes = lay_out(self.lengths(), one_block=True)
        data = bytearray(sizes[0])
        for _, offset, part in self.spread(places):
            data[offset : offset + len(part)] = part
        return bytes(data)


class Loose:
    """Pieces that came by a pipe, all in one."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = data

    def pieces(self) -> tuple[memoryview, list[bytearray]]:
        """Return the stream and the buffers; these are the caller's own, and can be written."""
        stream, *buffers = split(memoryview(self._data))
        return stream, [bytearray(buffer) for buffer in buffers]


def split(view: memoryview) -> list[memoryview]:
    """Return the pieces that stand in one block, the stream first."""
    lengths = read_lengths(view)
    places, (nbytes,) = lay_out(lengths, one_block=True)
    if nbytes > len(view):
        raise ValueError(f"pieces of {nbytes} bytes in {len(view)}")
    return [view[at : at + n] for (_, at), n in zip(places, lengths, strict=True)]


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def lay_out(lengths: Sequence[int], *, one_block: bool = False) -> tuple[list[tuple[int, int]], list[int]]:
    """Return the place of each piece, as number of its block and offset in it; and the size of each block."""
    full = max(SHARED_BLOCK, sum(lengths) // MOST_BLOCKS)
    places: list[tuple[int, int]] = []
    sizes: list[int] = []
    end = _COUNT.size + _LENGTH * len(lengths)
    for nbytes in lengths:
        if end >= full and not one_block and places:
            sizes.append(end)
            end = 0
        at = _aligned(end)
        places.append((len(sizes), at))
        end = at + nbytes
    return places, [*sizes, end]


def read_lengths(head: memoryview) -> list[int]:
    """Return the lengths that stand at the beginning of the first block."""
    (count,) = _COUNT.unpack_from(head)
    end = _COUNT.size + _LENGTH * count
    if count == 0 or end > len(head):
        raise ValueError(f"{count} pieces in {len(head)} bytes")
    return [int.from_bytes(head[at : at + _LENGTH], "little") for at in range(_COUNT.size, end, _LENGTH)]
