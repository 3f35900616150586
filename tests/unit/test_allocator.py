"""Which part of a file is whose: the allocator, without a file."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from procflow.wire import allocator as module
from procflow.wire.allocator import EPOCH, FIRST, FLOOR, SEGMENT, SMALLEST, Allocator, Block, segment_of

MIB = 2**20


def used(allocator: Allocator, nbytes: int) -> Block:
    """Allocate a block, and write it."""
    block = allocator.allocate(nbytes)
    assert block is not None
    allocator.back(block, nbytes)
    return block


def test_the_block_that_was_freed_last_is_used_next() -> None:
    allocator = Allocator()
    first, second = used(allocator, MIB), used(allocator, MIB)
    allocator.free(first.slot)
    allocator.free(second.slot)
    assert [used(allocator, MIB), used(allocator, MIB - 5)] == [second, first]


def test_a_free_block_of_another_size_is_not_used() -> None:
    allocator = Allocator()
    small = used(allocator, MIB)
    allocator.free(small.slot)
    assert allocator.allocate(MIB + 1) is not small


def test_a_larger_one_is_used_when_no_slot_is_left() -> None:
    allocator = Allocator(slots=2)
    large, _ = used(allocator, 8 * MIB), used(allocator, MIB)
    allocator.free(large.slot)
    assert allocator.allocate(2 * MIB) is large
    assert allocator.allocate(1) is None


def test_a_block_is_freed_once() -> None:
    allocator = Allocator()
    block = used(allocator, 5)
    assert allocator.free(block.slot)
    assert not allocator.free(block.slot)


def test_what_is_in_use_at_once_is_limited() -> None:
    allocator = Allocator(limit=10 * MIB)
    held = used(allocator, 6 * MIB)
    assert allocator.allocate(6 * MIB) is None
    allocator.free(held.slot)
    assert allocator.allocate(6 * MIB) is held


def test_a_block_never_crosses_the_end_of_a_segment() -> None:
    allocator = Allocator()
    for nbytes in (SEGMENT // 2, 5, SEGMENT, 3, SEGMENT // 2, 4 * SEGMENT, 1):
        used(allocator, nbytes)
        allocator.check()


def test_a_large_block_is_a_segment_of_its_own() -> None:
    block = used(Allocator(), SEGMENT + 1)
    assert segment_of(block.offset, block.order) == (block.offset, 2 * SEGMENT)
    assert segment_of(FIRST, SMALLEST) == (0, SEGMENT)


def test_free_memory_is_given_back_once_it_is_more_than_was_in_use_lately() -> None:
    allocator = Allocator(most_free=16 * FLOOR)
    big = [used(allocator, FLOOR) for _ in range(3)]
    for block in big:
        allocator.free(block.slot)
    assert allocator.surplus() == []  # it was in use a moment ago
    for _ in range(2 * EPOCH):
        allocator.free(used(allocator, MIB).slot)
    given = allocator.surplus()
    assert given == [(big[0], FLOOR), (big[1], FLOOR), (big[2], FLOOR)][: len(given)]
    assert allocator.backed <= FLOOR
    assert allocator.surplus() == []


def test_free_memory_has_a_limit_whatever_was_in_use() -> None:
    allocator = Allocator(most_free=2 * FLOOR)
    for block in [used(allocator, FLOOR) for _ in range(4)]:
        allocator.free(block.slot)
    assert len(allocator.surplus()) == 2


def test_a_successor_finds_what_is_in_use_and_what_is_warm() -> None:
    before = Allocator()
    held, free = used(before, 3 * MIB), used(before, MIB)
    before.free(free.slot)
    after = Allocator()
    after.adopt([(held.offset, held.order, held.backed, True), (free.offset, free.order, free.backed, False)])
    after.check()
    assert after.used == 1
    again = used(after, MIB)
    assert (again.slot, again.offset, again.backed) == (free.slot, free.offset, MIB)
    assert used(after, 1).offset >= free.offset + (1 << free.order)
    assert after.free(held.slot)


def test_what_was_given_to_one_owner_is_found() -> None:
    allocator = Allocator()
    mine, other = used(allocator, 1), used(allocator, 1)
    mine.owner, other.owner = 7, 8
    assert allocator.owned(7) == [mine.slot]
    allocator.free(mine.slot)
    assert used(allocator, 1).owner != 7  # it belongs to nobody, as long as nobody was given it


class Machine(RuleBasedStateMachine):
    """Any order of calls keeps the invariants; memory is where the allocator says."""

    def __init__(self) -> None:
        super().__init__()
        self.allocator = Allocator(slots=40, limit=20 * FLOOR, most_free=4 * FLOOR)
        self.held: dict[int, int] = {}  # slot -> bytes
        self.pages: dict[int, int] = {}  # slot -> bytes that have memory

    @rule(nbytes=st.one_of(st.integers(1, 200_000), st.integers(1, 6 * FLOOR)), write=st.booleans())
    def allocate(self, nbytes: int, write: bool) -> None:
        block = self.allocator.allocate(nbytes)
        if block is None:
            assert len(self.pages) == 40 or sum(self.held.values()) + nbytes > 20 * FLOOR or self.allocator.backed
            return
        assert block.slot not in self.held
        assert block.backed == self.pages.setdefault(block.slot, 0)
        self.held[block.slot] = nbytes
        if write:
            self.allocator.back(block, nbytes)
            self.pages[block.slot] = max(self.pages[block.slot], nbytes)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.held)))
        del self.held[slot]
        assert self.allocator.free(slot)
        for block, nbytes in self.allocator.surplus():
            assert block.slot not in self.held
            assert nbytes == self.pages[block.slot]
            self.pages[block.slot] = 0

    @invariant()
    def holds(self) -> None:
        self.allocator.check()
        assert self.allocator.used == len(self.held)
        free = sum(nbytes for slot, nbytes in self.pages.items() if slot not in self.held)
        assert free <= max(FLOOR, min(4 * FLOOR, 20 * FLOOR))


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestMachine = Machine.TestCase


def test_the_table_ends_before_the_first_block() -> None:
    from procflow.wire import blocks

    assert module.FIRST >= blocks.TABLE
