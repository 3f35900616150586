"""Blocks: room for what is too big for a packet or a pipe, in an anonymous file that two sides share.

The tasks' file of a pool is written by the pool and read by all its workers; each worker has a file for its results,
which the next worker inherits. One side, the *writer*, allocates. The *reader* maps what it is told of, and unpickles
from there; arrays stay views of the block, until the last of them is gone. What becomes of each block stands in a table
at the beginning of the file, one byte a block, so that no message is needed and a death leaves no doubt:

    FREE --writer--> SENT --reader--> HELD --reader--> RELEASED --writer--> FREE
                     SENT --writer, if it was never told of, or the reader is dead--> FREE, also from HELD
                     SENT --reader, if the writer died before it told of it--> RELEASED

B1  A block is used again only after its reader's word in the table, or the reader's death. No view ever sees that.
B2  The reader says it once nothing in its process can see the block: no view, and no fork of the process (`views.py`).
B3  Only pages that a write has filled are ever touched through a mapping; a full disk or a limit is an error of that
    write, never a SIGBUS.
B4  The file has no name: it is gone with the last process that has it open or mapped, however that ended.

A block is written by pwrite the first time, which need not clear pages before it fills them, and through the mapping
when it is warm, at twice that rate.
"""

from __future__ import annotations

import mmap
import os
import sys
from _thread import RLock
from _weakref import ref
from struct import Struct

from procflow.wire.allocator import FIRST, FLOOR, SLOTS, Allocator, segment_of
from procflow.wire.pieces import OUT_OF_BAND, lay_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from procflow.wire.allocator import Block
    from procflow.wire.pieces import Pieces
    from procflow.wire.views import Mapping

__all__ = ["BlockFile", "Writer", "can_map", "exporting", "nbytes_in", "reserve", "slots_in"]

FREE, SENT, HELD, RELEASED = 0, 1, 2, 3
PLACE = Struct("<IQBQ")  # slot, offset, order, bytes
_WORD = 8
_GEOMETRY = SLOTS  # where it begins: for each slot the offset, and in its lowest byte the order
_BACKED = _GEOMETRY + _WORD * SLOTS  # and here how many bytes of it have pages: for the writer's successor
TABLE = _BACKED + _WORD * SLOTS
assert TABLE <= FIRST

MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**32
MOST_FREE = max(FLOOR, min(MEMORY // 16, 5 * 2**28))  # bytes of free blocks of one file that are kept warm
RESULTS_MOST = MEMORY // 4  # bytes of a worker's results that may be in blocks at once
STEP = 1 << 23  # bytes copied at once: a copy holds the GIL


def can_map() -> bool:
    """Whether memory files can be mapped here, and their views watched."""
    return sys.platform == "linux" and sys.maxsize > 2**32


def reserve(fd: int, nbytes: int) -> None:
    """Fill the beginning of a file with zeros. What ftruncate adds has no memory yet, and may be a SIGBUS (B3)."""
    done = 0
    while done < nbytes:
        done += os.pwrite(fd, bytes(nbytes - done), done)


def nbytes_in(places: bytes | memoryview) -> int:
    """Return how many bytes stand at these places."""
    return sum([place[3] for place in PLACE.iter_unpack(places)])


def slots_in(states: memoryview, state: int) -> list[int]:
    """Return the slots that are in this state."""
    seen, found = bytes(states), list[int]()
    slot = seen.find(state)
    while slot >= 0:
        found.append(slot)
        slot = seen.find(state, slot + 1)
    return found


class BlockFile:
    """What both sides have: the file, its table, and the segments that are mapped."""

    def __init__(self, fd: int, *, mapped: bool) -> None:
        self.fd = fd
        self._mapped = mapped
        self._states: memoryview | None = None
        self._words: memoryview[int] | None = None
        self._segments: dict[tuple[int, int], Mapping] = {}
        _files.add(ref(self, _files.discard))

    def table(self) -> tuple[memoryview, memoryview[int]]:
        """Return the states and the words behind them: geometry, then how far they are backed."""
        states, words = self._states, self._words
        if states is None or words is None:
            _watch_forks()
            if os.fstat(self.fd).st_size < TABLE:
                reserve(self.fd, TABLE)
            untracked: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
            table = memoryview(mmap.mmap(self.fd, TABLE, **untracked))
            words = self._words = table[_GEOMETRY:].cast("Q")
            states = self._states = table[:SLOTS]
        return states, words

    def _mapping(self, offset: int, order: int) -> Mapping:
        from procflow.wire import views

        segment = segment_of(offset, order)
        mapping = self._segments.get(segment)
        if mapping is None:
            mapping = self._segments[segment] = views.Mapping(self.fd, *segment)
        return mapping

    def view(self, offset: int, order: int) -> tuple[Any, memoryview] | None:
        """Return the exporter and the view of a block; None if it can't be mapped."""
        if self._mapped:
            try:
                mapping = self._mapping(offset, order)
                return sys.modules["procflow.wire.views"].export(mapping, offset, order)  # type: ignore[no-any-return]
            except (OSError, ImportError):  # a limit of address space; ctypes is missing or may not be loaded
                pass
        return None

    def leave(self) -> None:
        """Touch the file no more, in which nobody allocates any longer. Views that exist stay as they are."""
        self.forget()

    def before_fork(self) -> None:
        """The process is about to fork. Under `exporting`."""

    def forget(self) -> None:
        """Let go of the file, without a word to the other side: also in a fork of the process that it belongs to."""
        self._states = self._words = None
        self._segments.clear()
        self.fd = -1


class Writer(BlockFile):
    """The side that allocates. Its `lock` is taken for moments only, and never while user code may run."""

    def __init__(self, fd: int, *, mapped: bool, limit: int | None = None) -> None:
        super().__init__(fd, mapped=mapped)
        self._lock = RLock()
        self._allocator = Allocator(limit=limit, most_free=MOST_FREE)
        self._adopted = False
        self._views: dict[int, memoryview] = {}  # of blocks that were written through the mapping, by slot

    def store(self, pieces: Pieces) -> bytes | None:
        """Write the pieces into blocks; return the places, for `Reader.parcel`; None if there is no room.

        Raises:
            OSError: The system has no room.
        """
        places, sizes = lay_out(pieces.lengths())
        blocks: list[Block] = []
        try:
            with self._lock:
                states, words = self._collect()
                for nbytes in sizes:
                    block = self._allocator.allocate(nbytes)
                    if block is None:
                        self._free([block.slot for block in blocks])
                        return None
                    blocks.append(block)
                    words[block.slot] = block.offset | block.order
                    states[block.slot] = SENT
            if sizes[0] < OUT_OF_BAND:
                self._write(blocks[0], 0, pieces.joined())
            else:
                for number, offset, part in pieces.spread(places):
                    self._write(blocks[number], offset, part)
        except BaseException:
            with self._lock:
                self._free([block.slot for block in blocks])
            raise
        with self._lock:
            for block in blocks:
                self._allocator.back(block, block.nbytes)
                words[SLOTS + block.slot] = block.backed
        return b"".join([PLACE.pack(block.slot, block.offset, block.order, block.nbytes) for block in blocks])

    def _write(self, block: Block, offset: int, data: bytes | memoryview) -> None:
        nbytes = len(data)
        if nbytes >= OUT_OF_BAND and block.backed >= offset + nbytes:
            view = self._views.get(block.slot)
            if view is None:
                found = self.view(block.offset, block.order)
                if found is not None:
                    view = self._views[block.slot] = found[1]
            if view is not None:
                source = memoryview(data)
                for at in range(0, nbytes, STEP):
                    part = source[at : at + STEP]
                    view[offset + at : offset + at + len(part)] = part
                return
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self.fd, rest, block.offset + offset)
            offset += written
            rest = rest[written:]

    def _collect(self) -> tuple[memoryview, memoryview[int]]:
        """Take back what the reader has released. Under the lock."""
        if self.fd < 0:
            raise OSError("the file of the blocks is closed")
        states, words = self.table()
        if not self._adopted:
            self._adopted = True
            self._adopt(states, words)
        released = slots_in(states[: self._allocator.made], RELEASED)
        if released:
            self._free(released)
        return states, words

    def _adopt(self, states: memoryview, words: memoryview[int]) -> None:
        found: list[tuple[int, int, int, bool]] = []
        for slot, place in enumerate(words[:SLOTS]):
            if place == 0:
                break
            found.append((place & ~0xFF, place & 0xFF, words[SLOTS + slot], states[slot] != FREE))
        self._allocator.adopt(found)

    def _free(self, slots: Sequence[int]) -> None:
        """These are free. Under the lock."""
        states, words = self._states, self._words
        if states is None or words is None:
            return
        for slot in slots:
            if self._allocator.free(slot):
                states[slot] = FREE
        for block, nbytes in self._allocator.surplus():
            words[SLOTS + block.slot] = 0
            self._give_back(block, nbytes)

    def _give_back(self, block: Block, nbytes: int) -> None:
        if not self._mapped:
            return  # the system writes a temporary file to the disk, and takes its memory as it likes
        try:
            mapping = self._mapping(block.offset, block.order)
            sys.modules["procflow.wire.views"].give_back(mapping, block.offset, nbytes)
        except (OSError, ImportError):  # what can't be given back stays until the file goes
            pass

    def give(self, slots: Sequence[int], owner: int) -> None:
        """Note that these blocks are about to be sent to `owner`."""
        for slot in slots:
            self._allocator.block(slot).owner = owner

    def free(self, slots: Sequence[int]) -> None:
        """Take back blocks that no reader was told of."""
        with self._lock:
            self._free(slots)

    def free_owned(self, owner: int) -> None:
        """Take back what was given to `owner`, which is dead."""
        with self._lock:
            self._free(self._allocator.owned(owner))

    @property
    def used(self) -> int:
        """How many blocks are in use, those included that were released and not yet collected."""
        return self._allocator.used

    def leave(self) -> None:
        with self._lock:
            super().leave()

    def forget(self) -> None:
        super().forget()
        self._views.clear()


# ---- the process as a whole

exporting = RLock()  # held while views are made, and from before a fork until after it
_files: set[ref[BlockFile]] = set()
_watching_forks = False


def _watch_forks() -> None:
    global _watching_forks
    if not _watching_forks and hasattr(os, "register_at_fork"):
        _watching_forks = True
        os.register_at_fork(before=_before_fork, after_in_parent=exporting.release, after_in_child=_after_in_child)


def _living() -> list[BlockFile]:
    return [file for found in list(_files) if (file := found()) is not None]


def _before_fork() -> None:
    exporting.acquire()
    for file in _living():
        file.before_fork()


def _after_in_child() -> None:
    """The files are the parent's: what this process drops of its copies must not be told to anyone."""
    for file in _living():
        file.forget()
    exporting.release()
