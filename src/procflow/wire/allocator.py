"""Which part of a file is whose: the blocks of one file, decided without touching it.

    FREE --allocate--> USED --free--> FREE        nothing else; who may call `free` when is `blocks.py`'s

A1  Blocks never overlap. One of at most SEGMENT bytes lies in one segment, which both sides map as a whole; a larger
    one is a segment of its own.                                                                        (check)
A2  A block is in use, or in the free list of its size, never both.                                     (check)
A3  The block that was freed last is used first: its pages are in the cache.
A4  Free blocks hold no more memory than what was in use lately (at least FLOOR, at most `most_free`); `surplus` names
    those that are to be given back.

Sizes are powers of two, of addresses only: memory is taken page by page as it is written, and `backed` says how much
of a block has any.
"""

from __future__ import annotations

from itertools import pairwise

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["FIRST", "SEGMENT", "SLOTS", "SMALLEST", "Allocator", "Block", "segment_of"]

SLOTS = 8192  # blocks in one file
SMALLEST = 16  # 64 KiB, a power of two: no page is larger
SEGMENT = 1 << 26
FIRST = 1 << 18  # where blocks begin; before it is the table of their states
FLOOR = 64 * 2**20  # bytes of free blocks that are always kept
EPOCH = 64  # allocations; "lately" is this and the epoch before


class Block:
    """A part of the file; its slot is its place in the table."""

    __slots__ = ("backed", "nbytes", "offset", "order", "owner", "slot")

    def __init__(self, slot: int, offset: int, order: int) -> None:
        self.slot = slot
        self.offset = offset
        self.order = order  # it is 1 << order bytes long
        self.nbytes = 0  # what its user asked for
        self.backed = 0  # bytes from its start on that have been written at some time, so there are pages
        self.owner = -1  # whom its user gave it to

    @property
    def weight(self) -> int:
        """How much memory it takes."""
        return max(self.nbytes, self.backed)


def segment_of(offset: int, order: int) -> tuple[int, int]:
    """Return the start and the length of the segment that a block lies in."""
    if 1 << order > SEGMENT:
        return offset, 1 << order
    return offset & -SEGMENT, SEGMENT


class Allocator:
    """See the module."""

    def __init__(self, *, slots: int = SLOTS, limit: int | None = None, most_free: int = FLOOR) -> None:
        self._slots = slots
        self._limit = limit  # bytes in use at once
        self._most_free = most_free
        self._blocks: list[Block] = []  # by slot
        self._free: dict[int, list[Block]] = {}  # by order
        self._used: dict[int, Block] = {}  # by slot
        self._end = FIRST
        self._used_bytes = self._free_bytes = 0
        self._count = self._peak = self._peak_before = 0

    def adopt(self, places: Iterable[tuple[int, int, int, bool]]) -> None:
        """Take over the blocks of an allocator that is gone: (offset, order, backed, used) by slot."""
        for offset, order, backed, used in places:
            block = self._add(offset, order)
            block.backed = backed
            if used:
                self._used_bytes += backed
                self._used[block.slot] = block
            else:
                self._free_bytes += backed
                self._free.setdefault(order, []).append(block)

    def allocate(self, nbytes: int) -> Block | None:
        """Return a block of at least `nbytes`; None if there is no slot left, or too much in use."""
        if self._limit is not None and self._used_bytes + nbytes > self._limit:
            return None
        order = max(SMALLEST, (nbytes - 1).bit_length())
        block = self._take(order)
        if block is None:
            return None
        self._free_bytes -= block.backed
        block.nbytes, block.owner = nbytes, -1
        self._used[block.slot] = block
        self._used_bytes += block.weight
        self._count += 1
        if self._count % EPOCH == 0:
            self._peak_before, self._peak = self._peak, 0
        self._peak = max(self._peak, self._used_bytes)
        return block

    def _take(self, order: int) -> Block | None:
        free = self._free.get(order)
        if free:
            return free.pop()
        if len(self._blocks) < self._slots:
            size = 1 << order
            aligned = min(size, SEGMENT)
            return self._add(-(-self._end // aligned) * aligned, order)
        larger = [other for other, blocks in self._free.items() if other > order and blocks]
        return self._free[min(larger)].pop() if larger else None

    def _add(self, offset: int, order: int) -> Block:
        block = Block(len(self._blocks), offset, order)
        self._blocks.append(block)
        self._end = max(self._end, offset + (1 << order))
        return block

    def back(self, block: Block, nbytes: int) -> None:
        """This much of a used block was written."""
        self._used_bytes -= block.weight
        block.backed = max(block.backed, nbytes)
        self._used_bytes += block.weight

    def free(self, slot: int) -> bool:
        """Take a block back; False if it was not in use."""
        block = self._used.pop(slot, None)
        if block is None:
            return False
        self._used_bytes -= block.weight
        self._free_bytes += block.backed
        self._free.setdefault(block.order, []).append(block)
        return True

    def owned(self, owner: int) -> list[int]:
        """Return the slots of the blocks that were given to `owner`."""
        return [block.slot for block in self._used.values() if block.owner == owner]

    def block(self, slot: int) -> Block:
        """Return the block of a slot."""
        return self._blocks[slot]

    def surplus(self) -> list[tuple[Block, int]]:
        """Return blocks whose memory is to be given back now, and how much: the largest first, then the coldest."""
        if self._free_bytes <= FLOOR:
            return []
        keep = min(self._most_free, max(FLOOR, self._peak, self._peak_before))
        given: list[tuple[Block, int]] = []
        for order in sorted(self._free, reverse=True):
            for block in self._free[order]:
                if self._free_bytes <= keep:
                    return given
                if block.backed:
                    given.append((block, block.backed))
                    self._free_bytes -= block.backed
                    block.backed = 0
        return given

    @property
    def made(self) -> int:
        """How many slots have a block."""
        return len(self._blocks)

    @property
    def used(self) -> int:
        """How many blocks are in use."""
        return len(self._used)

    @property
    def backed(self) -> int:
        """How much memory all blocks take."""
        return self._used_bytes + self._free_bytes

    def check(self) -> None:
        """Assert the invariants; for tests."""
        free = [block for blocks in self._free.values() for block in blocks]
        used = list(self._used.values())
        assert sorted(block.slot for block in free + used) == list(range(len(self._blocks)))  # A2
        places = sorted((block.offset, block.offset + (1 << block.order)) for block in self._blocks)
        assert all(end <= start for (_, end), (start, _) in pairwise(places))  # A1
        assert not places or (places[0][0] >= FIRST and places[-1][1] <= self._end)
        for block in self._blocks:
            start, nbytes = segment_of(block.offset, block.order)
            assert start <= block.offset  # A1
            assert block.offset + (1 << block.order) <= start + nbytes  # A1
            assert block.weight <= 1 << block.order
        assert self._used_bytes == sum(block.weight for block in used)
        assert self._free_bytes == sum(block.backed for block in free)
