"""The arithmetic of chunks and windows."""

from __future__ import annotations

import pytest

from procflow.scheduling.chunks import (
    ADAPTIVE_TARGET,
    AHEAD,
    GIVEN_TARGET,
    GROWTH,
    MOST,
    PER_WORKER_TARGET,
    STRETCH,
    blend,
    fair_share,
    fitting,
    read_ahead,
    stretched,
)


def test_the_first_sample_is_the_mean() -> None:
    assert blend(-1.0, 0.5) == 0.5


def test_later_samples_move_the_mean_half_way() -> None:
    assert blend(1.0, 3.0) == 2.0


def test_a_packet_holds_one_chunk_until_the_time_is_known() -> None:
    assert fitting(-1.0, 4, 1000, adaptive=True) == 1


def test_a_packet_holds_as_many_chunks_as_take_the_target_time() -> None:
    assert fitting(ADAPTIVE_TARGET / 10, 1, 1000, adaptive=True) == 10
    assert fitting(GIVEN_TARGET / 10, 1, 1000, adaptive=False) == 10


def test_the_target_grows_with_the_number_of_workers_that_the_parent_has_to_serve() -> None:
    workers = 1000
    assert fitting(1e-3, workers, 1000, adaptive=True) == int(workers * PER_WORKER_TARGET / 1e-3)


def test_a_given_chunksize_does_not_wait_longer_in_a_big_pool() -> None:
    assert fitting(GIVEN_TARGET, 1000, 1000, adaptive=False) == 1


def test_a_chunk_that_takes_longer_than_the_target_travels_alone() -> None:
    assert fitting(60.0, 1, 1000, adaptive=True) == 1


@pytest.mark.parametrize("seconds", [0.0, 1e-300, 1e-9])
def test_a_packet_of_free_items_is_bounded(seconds: float) -> None:
    assert fitting(seconds, 1, 10 * MOST, adaptive=True) == MOST


def test_a_packet_grows_by_a_bounded_factor() -> None:
    assert fitting(1e-9, 1, 3, adaptive=True) == 3 * GROWTH


def test_of_a_finite_rest_a_packet_takes_half_a_workers_share() -> None:
    assert fair_share(80, 4, more_to_come=False) == 10


def test_of_an_input_that_goes_on_a_packet_takes_a_whole_share() -> None:
    assert fair_share(80, 4, more_to_come=True) == 20


@pytest.mark.parametrize("more_to_come", [False, True])
def test_a_share_is_at_least_one(more_to_come: bool) -> None:
    assert fair_share(1, 64, more_to_come=more_to_come) == 1


def test_the_callers_buffersize_is_kept_exactly() -> None:
    assert read_ahead(7, 64, 2, 65536, 100) == 7


def test_without_a_buffersize_twice_what_the_workers_may_hold_is_read() -> None:
    assert read_ahead(None, 4, 2, 10, 3) == 2 * 4 * 2 * 10 * 3


def test_however_quick_the_items_are_only_so_many_are_read() -> None:
    assert read_ahead(None, 2, 2, 65_536, 1) == AHEAD
    assert read_ahead(None, 64, 2, 1, AHEAD) == 64 * 2 * AHEAD, "chunks of the caller's size: one for each packet"


def test_packets_stretch_while_workers_run_dry_and_shrink_after_it() -> None:
    stretch = 1.0
    for _ in range(20):
        stretch = stretched(stretch, dry=True)
    assert stretch == STRETCH
    assert fitting(ADAPTIVE_TARGET / 10, 1, 1000, adaptive=True, stretch=stretch) == int(10 * STRETCH)
    for _ in range(200):
        stretch = stretched(stretch, dry=False)
    assert stretch == 1.0
