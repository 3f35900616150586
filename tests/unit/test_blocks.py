"""Blocks: what is too big for a packet, in a file without a name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procflow.wire import blocks as module
from procflow.wire.blocks import Blocks, anonymous_file, read_block


@pytest.fixture(params=[False, True], ids=["memfd", "portable"])
def blocks(request: pytest.FixtureRequest) -> Iterator[Blocks]:
    made = Blocks(portable=request.param)
    yield made
    made.close()


def put(blocks: Blocks, *parts: bytes) -> tuple[int, int]:
    nbytes = sum(map(len, parts))
    offset = blocks.allocate(nbytes)
    blocks.write(offset, parts)
    return offset, nbytes


def test_what_was_written_is_read(blocks: Blocks) -> None:
    offset, nbytes = put(blocks, b"a" * 5000, b"", b"b" * 70_000)
    assert read_block(blocks.fd, offset, nbytes) == b"a" * 5000 + b"b" * 70_000


def test_any_buffer_can_be_written(blocks: Blocks) -> None:
    offset = blocks.allocate(6)
    blocks.write(offset, [memoryview(b"xabcx")[1:4], b"def"])
    assert read_block(blocks.fd, offset, 6) == b"abcdef"


def test_blocks_in_use_do_not_overlap(blocks: Blocks) -> None:
    texts = [bytes([number]) * (1000 * number + 1) for number in range(10)]
    places = [put(blocks, text) for text in texts]
    assert [read_block(blocks.fd, *place) for place in places] == texts
    assert blocks.used == 10


def test_the_block_that_was_freed_last_is_used_next(blocks: Blocks) -> None:
    first, second = blocks.allocate(5000), blocks.allocate(5000)
    blocks.free(first)
    blocks.free(second)
    assert [blocks.allocate(8000), blocks.allocate(8000)] == [second, first]


def test_a_free_block_of_another_size_is_not_used(blocks: Blocks) -> None:
    small = blocks.allocate(4096)
    blocks.free(small)
    assert blocks.allocate(4097) != small


def test_a_block_can_not_be_freed_twice(blocks: Blocks) -> None:
    offset = blocks.allocate(1)
    blocks.free(offset)
    with pytest.raises(KeyError):
        blocks.free(offset)


def test_what_was_never_written_is_an_error_not_a_wait(blocks: Blocks) -> None:
    with pytest.raises(EOFError, match="100 bytes"):
        read_block(blocks.fd, 1 << 30, 100)


def test_many_free_bytes_are_given_back(blocks: Blocks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WARM", 10_000)
    places = [put(blocks, bytes(8000))[0] for _ in range(3)]
    for offset in places[:2]:
        blocks.free(offset)
    assert os.fstat(blocks.fd).st_size > 10_000  # one is in use
    blocks.free(places[2])
    assert os.fstat(blocks.fd).st_size == 0
    assert blocks.allocate(1) == 0


@pytest.mark.parametrize("portable", [False, True])
def test_an_anonymous_file_has_no_name_and_is_not_inherited(portable: bool) -> None:
    fd = anonymous_file("procflow-test", portable=portable)
    try:
        assert not os.get_inheritable(fd)
        assert not Path(os.readlink(f"/proc/self/fd/{fd}")).exists()
    finally:
        os.close(fd)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 20_000)), max_size=30))
def test_blocks_in_use_never_overlap_whatever_is_freed(steps: list[tuple[bool, int]]) -> None:
    blocks, used = Blocks(), dict[int, int]()
    try:
        for free, nbytes in steps:
            if free and used:
                offset = next(iter(used))
                del used[offset]
                blocks.free(offset)
            else:
                used[blocks.allocate(nbytes)] = nbytes
            places = sorted(used.items())
            assert all(a + size <= b for (a, size), (b, _) in pairwise(places))
            assert blocks.used == len(used)
    finally:
        blocks.close()
