"""Parcels: the reading side of blocks. What came is unpickled where it stands, and its arrays stay views of the block.

    Parcel    SENT (arrived) -> HELD -> RELEASED, once it was dropped unread, or the last view of what it held is gone

P1  A block is released exactly once, by the last that could see it: the parcel if nobody has read it, else the view.
    It is one store of a byte, so any thread may do it at any moment, a garbage collection too.
P2  Nothing is shared with a fork of this process: before it, every view is given private memory, and what is unread is
    read. If there is no memory for that, the block is never used again.
P3  A view is a private copy where the file can't be mapped; where this process holds much already (HELD_MOST, or its
    part of the slots); and for what is small.
P4  What the writer tells is believed only as far as its table and the file bear it out: a task may write into its pipe.
"""

from __future__ import annotations

import os
import sys
from _weakref import ref
from collections import deque
from struct import error as struct_error

from procflow.wire.allocator import SLOTS
from procflow.wire.blocks import HELD, MEMORY, PLACE, RELEASED, SENT, TABLE, BlockFile, exporting, slots_in
from procflow.wire.pieces import OUT_OF_BAND, lay_out, read_lengths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Place = tuple[int, int, int, int]  # slot, offset, order, bytes

__all__ = ["VIEWS_MOST", "Parcel", "Reader"]

HELD_MOST = MEMORY // 4  # bytes that the views of one process may hold; what comes then is copied
VIEWS_MOST = 64  # blocks that a worker may hold of the tasks' file, which all workers share


class _View(ref):  # type: ignore[type-arg]
    """A weak reference to an exporter: tells the reader when the last view of the block is gone."""

    __slots__ = ("nbytes", "reader", "slot")
    nbytes: int
    reader: Reader
    slot: int


class Reader(BlockFile):
    """The side that reads. What it holds is released by whichever thread drops the last view: without a lock."""

    def __init__(self, fd: int, *, mapped: bool, most_views: int = SLOTS // 2) -> None:
        super().__init__(fd, mapped=mapped)
        self._most_views = most_views
        self._held: dict[int, _View] = {}  # by slot
        self._unread: dict[int, ref[Parcel]] = {}
        self._size = 0  # of the file, at least

    def parcel(self, data: bytes | memoryview) -> Parcel:
        """Take over what the writer tells of.

        Raises:
            ValueError: It is not as the table says: these are no words of the writer's.
        """
        try:
            places: list[Place] = list(PLACE.iter_unpack(data))
        except struct_error:
            places = []
        if not places:
            raise ValueError(f"{len(data)} bytes are no places")
        states, words = self.table()
        for slot, offset, order, nbytes in places:
            if (
                slot >= SLOTS
                or states[slot] != SENT
                or words[slot] != offset | order
                or not 0 < nbytes <= 1 << order
                or not self._reaches(offset + nbytes)
            ):
                raise ValueError(f"no block was sent at slot {slot}, offset {offset}")
        for slot, _, _, _ in places:
            states[slot] = HELD
        parcel = Parcel(self, places)
        self._unread[id(parcel)] = ref(parcel)
        return parcel

    def _reaches(self, end: int) -> bool:
        """Whether the file is that long: beyond its end a mapping is a SIGBUS."""
        if end > self._size:
            self._size = os.fstat(self.fd).st_size
        return end <= self._size

    def settle(self) -> None:
        """The writer is dead, and all that it told was heard: release what it has not told of."""
        if self._states is not None or self._reaches(TABLE):
            states, _ = self.table()
            for slot in slots_in(states, SENT):
                states[slot] = RELEASED

    def take(self, place: Place) -> memoryview:
        """Return the view of a block, or a copy. Called once for each place, under `exporting`."""
        slot, offset, order, nbytes = place
        if nbytes >= OUT_OF_BAND and len(self._held) < self._most_views and _held_bytes() + nbytes <= HELD_MOST:
            found = self.view(offset, order)
            if found is not None:
                exporter, view = found
                watch = _View(exporter, _released)
                watch.slot, watch.nbytes, watch.reader = slot, nbytes, self
                self._held[slot] = watch
                _count(nbytes)
                return view[:nbytes]
        copy = memoryview(bytearray(nbytes))
        rest = copy
        while rest:
            got = os.preadv(self.fd, [rest], offset)
            if not got:
                raise EOFError(f"a block of {nbytes} bytes ends {len(rest)} bytes early")
            offset += got
            rest = rest[got:]
        self.say_released(slot)
        return copy

    def say_released(self, slot: int) -> None:
        """Tell the writer that nothing here sees this block (P1). One store of a byte: any thread, any time."""
        states = self._states
        if states is not None:
            states[slot] = RELEASED

    def view_gone(self, watch: _View) -> None:
        """Nothing sees this block any more."""
        if self._held.pop(watch.slot, None) is not None:
            _count(-watch.nbytes)
            self.say_released(watch.slot)

    def drop(self, parcel: Parcel, places: Sequence[Place]) -> None:
        """A parcel is gone; nobody has read these."""
        self._unread.pop(id(parcel), None)
        for place in places:
            self.say_released(place[0])

    def read_on(self) -> None:
        """Let all parcels take what is theirs."""
        for found in list(self._unread.values()):
            parcel = found()
            if parcel is not None:
                parcel.secure()

    def before_fork(self) -> None:
        """Make all views private memory (P2)."""
        self.read_on()
        views = sys.modules.get("procflow.wire.views")
        for slot, watch in list(self._held.items()):
            exporter: object = watch()  # pyright: ignore[reportUnknownVariableType]
            if exporter is None or views is None:
                continue
            try:
                views.detach(exporter, watch.nbytes)
            except OSError:  # no memory. Then the block is never used again: parent and child share it
                self._held.pop(slot, None)
                _count(-watch.nbytes)
                continue
            del exporter
            if self._held.pop(slot, None) is not None:
                _count(-watch.nbytes)
                self.say_released(slot)
        self._segments.clear()  # they have holes now

    def leave(self) -> None:
        with exporting:
            self.read_on()
            super().leave()


def _released(watch: _View) -> None:
    watch.reader.view_gone(watch)


class Parcel:
    """What stands in some blocks: a pickle's stream and its buffers. It releases what nobody has read."""

    __slots__ = ("__weakref__", "_places", "_reader", "_views")

    def __init__(self, reader: Reader, places: list[Place]) -> None:
        self._reader = reader
        self._places = places  # not taken yet
        self._views: list[memoryview] = []

    def pieces(self) -> tuple[memoryview, list[memoryview]]:
        """Return the stream and the buffers, which can be written. Twice called, they are the same."""
        self.secure()
        lengths = read_lengths(self._views[0])
        places, sizes = lay_out(lengths)
        if sizes != [len(view) for view in self._views]:
            raise ValueError("the blocks of a parcel have other sizes than its pieces")
        stream, *buffers = [
            self._views[block][at : at + nbytes] for (block, at), nbytes in zip(places, lengths, strict=True)
        ]
        return stream, buffers

    def secure(self) -> None:
        """Take what is in the blocks, if it was not done before."""
        with exporting:
            while self._places:
                self._views.append(self._reader.take(self._places[0]))
                del self._places[0]

    def __del__(self) -> None:
        self._reader.drop(self, self._places)


_total = 0
_changes: deque[int] = deque()  # bytes held or released since `_total` was taken; a finalizer may append at any moment


def _count(nbytes: int) -> None:
    _changes.append(nbytes)


def _held_bytes() -> int:
    """How many bytes the views of this process hold. Under `exporting`."""
    global _total
    while _changes:
        _total += _changes.popleft()
    return _total
