"""Blocks and parcels: both sides of a file, in one process."""

from __future__ import annotations

import errno
import gc
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procflow.start.spool import anonymous_file
from procflow.wire import parcels, views
from procflow.wire.blocks import FREE, HELD, PLACE, RELEASED, SENT, TABLE, Writer
from procflow.wire.parcels import Parcel, Reader
from procflow.wire.pickling import pack, unpack
from procflow.wire.pieces import OUT_OF_BAND, Loose, Pieces, lay_out, read_lengths
from tests.support import DEADLOCK, wait_until

BIG = 100_000


class Sides:
    """A file with its writer and its reader."""

    def __init__(self, *, mapped: bool = True, **limits: int) -> None:
        self.fd = anonymous_file("procflow-test", portable=not mapped)
        self.writer = Writer(self.fd, mapped=mapped, **limits)
        self.reader = Reader(self.fd, mapped=mapped)

    def send(self, obj: object) -> Parcel:
        packed = pack(obj)
        places = self.writer.store(packed if isinstance(packed, Pieces) else Pieces([packed]))
        assert places is not None
        return self.reader.parcel(places)

    def states(self) -> bytes:
        return bytes(self.writer.table()[0]).rstrip(bytes([FREE]))


@pytest.fixture(params=[True, False], ids=["mapped", "portable"])
def sides(request: pytest.FixtureRequest) -> Iterator[Sides]:
    made = Sides(mapped=request.param)
    yield made
    os.close(made.fd)


@pytest.fixture
def mapped() -> Iterator[Sides]:
    made = Sides()
    yield made
    os.close(made.fd)


class Buffer:
    """What a class does that gives its memory away (PEP 574)."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Buffer, (pickle.PickleBuffer(self.data),)


def in_child(work: Any) -> int:
    """Run `work` in a fork of this process; return its exit code, 0 if it was true."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    timer = threading.Timer(DEADLOCK, os.kill, (pid, signal.SIGKILL))
    timer.start()
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        timer.cancel()


# -- what comes out is what went in


@given(st.lists(st.binary(max_size=3 * OUT_OF_BAND).map(bytearray), max_size=6), st.booleans())
def test_any_buffers_come_out_as_they_went_in(data: list[bytearray], mapped: bool) -> None:
    sides = Sides(mapped=mapped)
    try:
        came = unpack(sides.send([Buffer(one) for one in data]))
        assert [bytes(one.data) for one in came] == data
        del came
        assert set(sides.states()) <= {RELEASED}
    finally:
        os.close(sides.fd)


@given(st.lists(st.integers(0, 5 * 2**20), min_size=1, max_size=300))
def test_pieces_never_overlap(lengths: list[int]) -> None:
    places, sizes = lay_out(lengths)
    ends = [0] * len(sizes)
    ends[0] = 4 + 8 * len(lengths)
    for (block, at), nbytes in zip(places, lengths, strict=True):
        assert at >= ends[block]
        assert at % 64 == 0
        ends[block] = at + nbytes
    assert ends == sizes
    assert len(sizes) <= 66  # their places fit into a packet


def test_a_large_buffer_has_a_block_of_its_own_and_small_ones_share(mapped: Sides) -> None:
    unpack(mapped.send([Buffer(bytearray(2**21)) for _ in range(3)]))
    assert len(mapped.states()) == 3
    mapped.writer.free(range(3))
    unpack(mapped.send([Buffer(bytearray(OUT_OF_BAND)) for _ in range(20)]))
    assert len(mapped.states()) == 4  # one of the sizes there were


def test_large_bytes_are_taken_by_reference() -> None:
    data = bytes(BIG)
    pack([data])  # from now on what is big is expected
    packed = pack([data, 5])
    assert isinstance(packed, Pieces)
    assert any(part is data for part in packed.parts)
    assert isinstance(pack(5), bytes)


def test_a_bytearray_may_be_resized_once_its_pieces_are_frozen() -> None:
    data = bytearray(BIG)
    pack([data])
    packed = pack([data])
    assert isinstance(packed, Pieces)
    frozen = packed.frozen()
    del packed
    data += b"more"
    assert unpack(Loose(frozen.joined())) == [bytearray(BIG)]


def test_pieces_can_travel_by_a_pipe() -> None:
    packed = pack([Buffer(bytearray(b"x" * BIG)), "and", Buffer(b"y" * BIG)])
    assert isinstance(packed, Pieces)
    first, word, second = unpack(Loose(packed.joined()))
    assert (bytes(first.data), word, bytes(second.data)) == (b"x" * BIG, "and", b"y" * BIG)
    first.data[0] = 0  # it can be written


@pytest.mark.parametrize("data", [b"\0\0\0\0", b"\xff\xff\0\0" * 3])
def test_garbage_has_no_pieces(data: bytes) -> None:
    with pytest.raises(ValueError, match="pieces in"):
        read_lengths(memoryview(data))


# -- the life of a block


def test_a_block_goes_through_its_states(mapped: Sides) -> None:
    places = mapped.writer.store(Pieces([pickle.dumps(1)], [memoryview(bytearray(BIG))]))
    assert places is not None
    assert list(mapped.states()) == [SENT]
    parcel = mapped.reader.parcel(places)
    assert list(mapped.states()) == [HELD]
    buffers = parcel.pieces()[1]
    del parcel
    assert list(mapped.states()) == [HELD]
    del buffers
    assert list(mapped.states()) == [RELEASED]
    mapped.writer.store(Pieces([bytes(BIG)]))
    assert list(mapped.states()) == [SENT]  # the same one again


def test_the_last_view_holds_the_block_whatever_it_is_derived_from(mapped: Sides) -> None:
    numpy = pytest.importorskip("numpy")
    came = unpack(mapped.send(numpy.arange(BIG)))
    part = came.reshape(-1, 10)[::2, 3].T
    view = memoryview(part)
    del came, part
    gc.collect()
    assert list(mapped.states()) == [HELD]
    assert view[1] == 23
    del view
    assert list(mapped.states()) == [RELEASED]


def test_a_view_never_sees_the_next_use(sides: Sides) -> None:
    held = [unpack(sides.send(Buffer(bytearray([n]) * BIG))) for n in range(20)]
    assert all(bytes(one.data) == bytes([n]) * BIG for n, one in enumerate(held))
    del held[::2]
    more = [unpack(sides.send(Buffer(bytearray([100 + n]) * BIG))) for n in range(20)]
    assert [one.data[5] for one in held] == list(range(1, 20, 2))
    assert [one.data[5] for one in more] == list(range(100, 120))


def test_views_are_the_receivers_own(sides: Sides) -> None:
    data = bytearray(BIG)
    came = unpack(sides.send(Buffer(data)))
    came.data[:3] = b"abc"
    again = unpack(sides.send(Buffer(data)))
    assert bytes(again.data[:3]) == bytes(data[:3]) == b"\0\0\0"


def test_what_is_never_read_is_released(sides: Sides) -> None:
    parcel = sides.send(bytes(BIG))
    assert list(sides.states()) == [HELD]
    del parcel
    assert list(sides.states()) == [RELEASED]


def test_a_parcel_can_be_read_twice(sides: Sides) -> None:
    parcel = sides.send([bytes(BIG), Buffer(bytearray(BIG))])
    assert unpack(parcel)[0] == unpack(parcel)[0] == bytes(BIG)


def test_views_outlive_both_sides(sides: Sides) -> None:
    read = unpack(sides.send(Buffer(bytearray(b"r" * BIG))))
    unread = sides.send(Buffer(bytearray(b"u" * BIG)))
    sides.writer.leave()
    sides.reader.leave()
    os.ftruncate(sides.fd, os.fstat(sides.fd).st_size)  # the descriptor is the caller's
    assert bytes(read.data) == b"r" * BIG
    assert bytes(unpack(unread).data) == b"u" * BIG


def test_a_closed_file_takes_nothing_more(sides: Sides) -> None:
    sides.writer.leave()
    with pytest.raises(OSError, match="closed"):
        sides.writer.store(Pieces([bytes(BIG)]))
    sides.writer.free([0])  # a packet that is discarded after the end


# -- deaths


def test_blocks_of_a_dead_reader_are_taken_back(sides: Sides) -> None:
    first, second = (sides.writer.store(Pieces([bytes(BIG)])) for _ in range(2))
    assert first is not None
    assert second is not None
    sides.writer.give([PLACE.unpack(first)[0]], 7)
    sides.writer.give([PLACE.unpack(second)[0]], 8)
    sides.writer.free_owned(7)
    assert list(sides.states()) == [FREE, SENT]


def test_a_successor_of_the_writer_spares_what_is_read(sides: Sides) -> None:
    held = unpack(sides.send(Buffer(bytearray(b"h" * BIG))))
    sides.writer.store(Pieces([bytes(BIG)]))  # and it dies before it could tell
    sides.reader.settle()
    sides.writer = Writer(sides.fd, mapped=True)
    for n in range(5):
        came = unpack(sides.send(Buffer(bytearray([n]) * BIG)))
        assert came.data[7] == n
        del came
    assert bytes(held.data) == b"h" * BIG
    assert len(sides.states()) <= 2  # two blocks are enough for all that


@pytest.mark.parametrize(
    "place",
    [
        (0, 2**18, 17, 50),  # here already
        (9000, 2**18, 17, 50),  # no slot
        (1, 2**18, 17, 50),  # another one's place
        (1, 2**18 + 2**17, 18, 50),
        (1, 2**18 + 2**17, 17, 2**17 + 1),
        (2, 2**18 + 2 * 2**17, 17, 2**17),  # beyond the end of the file
        (1, 2**18 + 2**17, 17, 0),
    ],
)
def test_no_place_is_believed_that_the_table_does_not_know(mapped: Sides, place: tuple[int, int, int, int]) -> None:
    held = mapped.send(bytes(BIG))
    for _ in range(2):
        mapped.writer.store(Pieces([bytes(BIG)]))
    assert list(mapped.states()) == [HELD, SENT, SENT]
    with pytest.raises(ValueError, match="no block was sent"):
        mapped.reader.parcel(PLACE.pack(*place))
    del held


@pytest.mark.parametrize("data", [b"", b"abc"])
def test_what_is_no_place_is_not_believed(mapped: Sides, data: bytes) -> None:
    with pytest.raises(ValueError, match="no places"):
        mapped.reader.parcel(data)


# -- limits


def test_what_exceeds_the_writers_limit_finds_no_room() -> None:
    sides = Sides(limit=3 * BIG)
    held = [sides.send(bytes(BIG)), sides.send(bytes(BIG))]
    assert sides.writer.store(Pieces([bytes(BIG)])) is None
    assert list(sides.states()) == [HELD, HELD]
    held.clear()
    assert sides.writer.store(Pieces([bytes(BIG)])) is not None
    os.close(sides.fd)


def test_what_exceeds_the_readers_limit_is_copied(mapped: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcels, "HELD_MOST", parcels._held_bytes() + 2 * BIG)
    held = [unpack(mapped.send(Buffer(bytearray([n]) * BIG))) for n in range(5)]
    assert list(mapped.states()) == [HELD, RELEASED]
    assert [one.data[3] for one in held] == [0, 1, 2, 3, 4]
    held[4].data[0] = 5  # it can be written


def test_where_nothing_can_be_mapped_it_is_copied(mapped: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOMEM, "no address space is left")

    monkeypatch.setattr(views, "Mapping", refuse)
    for n in range(3):
        came = unpack(mapped.send(Buffer(bytearray([n]) * BIG)))
        assert bytes(came.data) == bytes([n]) * BIG
        assert list(mapped.states()) == [RELEASED]


def test_a_full_disk_is_an_error_and_leaves_no_block(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    sides.send(bytes(10))
    real = os.pwrite

    def full(fd: int, data: Any, offset: int) -> int:
        if offset > TABLE + BIG:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data[:1000], offset)  # and none is written whole

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        sides.writer.store(Pieces([bytes(3 * BIG)]))
    monkeypatch.undo()
    assert set(sides.states()) <= {RELEASED, FREE}
    assert unpack(sides.send(bytes(3 * BIG))) == bytes(3 * BIG)


def test_free_memory_is_given_back(mapped: Sides) -> None:
    for parcel in [mapped.send(bytes(2**25)) for _ in range(4)]:
        unpack(parcel)
    del parcel
    for _ in range(200):
        mapped.send(bytes(BIG))
    assert os.fstat(mapped.fd).st_blocks * 512 < 80 * 2**20  # of 128
    assert unpack(mapped.send(bytes(2**25))) == bytes(2**25)


# -- forks


def test_a_fork_has_its_own_copy_of_every_view(mapped: Sides) -> None:
    came = unpack(mapped.send(Buffer(bytearray(b"c" * BIG))))
    unread = mapped.send(Buffer(bytearray(b"u" * BIG)))
    reader, writer = os.pipe()

    def child() -> bool:
        os.read(reader, 1)  # until the parent has written into its view, and has used the block again
        came.data[1:2] = b"C"
        return bytes(came.data) == b"cC" + b"c" * (BIG - 2) and bytes(unpack(unread).data) == b"u" * BIG

    done: list[int] = []
    thread = threading.Thread(target=lambda: done.append(in_child(child)))
    thread.start()
    wait_until(lambda: list(mapped.states()) == [RELEASED, RELEASED], "the views are private memory")
    came.data[0:1] = b"p"
    again = unpack(mapped.send(Buffer(bytearray(b"n" * BIG))))
    os.write(writer, b"!")
    thread.join(DEADLOCK)
    assert done == [0]
    assert bytes(came.data) == b"p" + b"c" * (BIG - 1)
    assert bytes(unpack(unread).data) == b"u" * BIG
    assert bytes(again.data) == b"n" * BIG
    os.close(reader)
    os.close(writer)


def test_a_fork_says_nothing_to_the_other_side(mapped: Sides) -> None:
    came, unread = unpack(mapped.send(Buffer(bytearray(BIG)))), mapped.send(bytes(BIG))

    def child() -> bool:
        nonlocal came, unread
        del came, unread
        gc.collect()
        return True

    later = [mapped.send(bytes(BIG)), mapped.send(bytes(10))]
    assert in_child(child) == 0
    assert HELD not in mapped.states()  # they were read before the fork, and nothing is held
    fresh = mapped.send(Buffer(bytearray(BIG)))
    assert list(mapped.states()).count(HELD) == 1
    del came, unread, later, fresh


def test_if_a_view_can_not_be_made_private_its_block_is_never_used_again(
    mapped: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOMEM, "no memory")

    came = unpack(mapped.send(Buffer(bytearray(b"c" * BIG))))
    monkeypatch.setattr(views, "detach", refuse)

    def child(came: Buffer = came) -> bool:
        return bytes(came.data) == b"c" * BIG

    assert in_child(child) == 0
    del came, child
    assert list(mapped.states()) == [HELD]


def test_many_views_and_forks_leave_no_mapping_and_no_descriptor(mapped: Sides) -> None:
    def left() -> tuple[int, int]:
        gc.collect()
        return Path("/proc/self/maps").read_text().count("procflow-test"), len(os.listdir("/proc/self/fd"))

    unpack(mapped.send(Buffer(bytearray(BIG))))
    before = left()
    for _ in range(10):
        came = [unpack(mapped.send(Buffer(bytearray(2**21)))) for _ in range(3)]
        assert in_child(lambda: True) == 0
        came.append(unpack(mapped.send(Buffer(bytearray(2**21)))))
        del came
    unpack(mapped.send(Buffer(bytearray(BIG))))
    maps, fds = left()
    assert maps <= before[0] + 1
    assert fds == before[1]


@pytest.mark.parametrize("portable", [False, True])
def test_an_anonymous_file_has_no_name_and_is_not_inherited(portable: bool) -> None:
    fd = anonymous_file("procflow-test", portable=portable)
    try:
        assert not os.get_inheritable(fd)
        assert not Path(os.readlink(f"/proc/self/fd/{fd}")).exists()
    finally:
        os.close(fd)
