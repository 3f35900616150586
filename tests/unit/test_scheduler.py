"""Each rule and each race of the scheduler, without a process; test_scheduler_machine has every order of events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from procflow.scheduling.scheduler import DIED, KILLED, OVERDUE, UNLIMITED, Job, Limits, Packet, Scheduler

if TYPE_CHECKING:
    from procflow.scheduling.scheduler import Cause

QUICK = 1e-9  # seconds per item: as many as possible share a packet
CAUSE: Cause = (4711, -9, "")


class Driver:
    """A scheduler whose commands are sorted by kind, and are kept until they are asked for."""

    def __init__(
        self,
        processes: int = 1,
        maxtasksperchild: int | None = None,
        window: int = 2,
        *,
        ready: bool = True,
        cores: int = 0,
    ) -> None:
        self.scheduler = Scheduler(processes, maxtasksperchild, window, cores=cores)
        self.commands: list[tuple[object, ...]] = []
        self.numbers = 0
        self.scheduler.open()
        self.started = [command[1] for command in self.scheduler.take()]
        if ready:
            for worker in self.started:
                self.scheduler.worker_ready(worker)  # type: ignore[arg-type]

    def job(
        self,
        count: int = 0,
        *,
        seconds: float = -1.0,
        closed: bool = True,
        grain: int | None = None,
        lazy: bool = False,
        limits: Limits = UNLIMITED,
    ) -> Job:
        """Add a job whose items take so long."""
        self.numbers += 1
        job = self.scheduler.add_job(self.numbers, grain=grain or 1, adaptive=grain is None, lazy=lazy, limits=limits)
        job.seconds, job.packet = seconds, 1000
        if count:
            self.scheduler.add_items(job, count)
        if closed:
            self.scheduler.close_job(job)
        return job

    def take(self, kind: str) -> list[tuple[object, ...]]:
        """Return the commands of this kind that came since it was asked last, without the kind."""
        self.commands += self.scheduler.take()
        self.scheduler.check()
        found = [command[1:] for command in self.commands if command[0] == kind]
        self.commands = [command for command in self.commands if command[0] != kind]
        return found

    def encode(self) -> list[Packet]:
        return [packet for (packet,) in self.take("encode")]  # type: ignore[misc]

    def send(self) -> list[Packet]:
        packets = self.encode()
        for packet in packets:
            assert self.scheduler.encoded(packet)
        return packets

    def finish(self, packet: Packet, seconds: float = 1.0) -> None:
        self.scheduler.answered(packet.worker, packet.seq, packet.stop - packet.done, seconds, True)


def spans(packets: list[Packet]) -> list[tuple[int, int]]:
    return [(packet.start, packet.stop) for packet in packets]


# -- more workers than processors ----


def test_quick_items_go_to_as_many_workers_as_can_run_at_once() -> None:
    driver = Driver(8, cores=2)
    driver.job(100, seconds=QUICK, closed=False)
    assert len({packet.worker for packet in driver.send()}) == 2
    assert not driver.take("take_back")


def test_items_that_take_longer_than_a_wake_up_go_to_all_workers() -> None:
    driver = Driver(8, cores=2)
    driver.job(100, seconds=1e-3)
    assert len({packet.worker for packet in driver.send()}) == 8


def test_items_of_which_no_time_is_known_go_to_all_workers() -> None:
    driver = Driver(8, cores=2)
    driver.job(100)
    assert len({packet.worker for packet in driver.send()}) == 8


def test_when_quick_items_turn_out_to_wait_all_workers_are_woken() -> None:
    driver = Driver(8, cores=2)
    driver.job(100, seconds=QUICK, closed=False)
    driver.send()
    assert driver.scheduler.wants_ticks
    driver.scheduler.tick()  # the progress until now
    driver.scheduler.tick()
    driver.take("encode")
    assert not driver.scheduler.slack[0]


def test_an_unread_packet_stays_where_it_is_while_the_processors_have_enough_to_do() -> None:
    driver = Driver(8, cores=2)
    driver.job(4, seconds=QUICK, grain=1)
    packets = driver.send()
    driver.scheduler.tick()
    assert not driver.take("take_back")
    driver.scheduler.tick()  # no progress since
    assert driver.take("take_back") or len({packet.worker for packet in packets}) < 2


def test_a_worker_that_goes_on_is_not_stuck_any_more() -> None:
    driver = Driver(8, cores=2)
    job = driver.job(4, seconds=QUICK, closed=False)
    packets = driver.send()
    driver.scheduler.tick()
    driver.scheduler.tick()
    for packet in packets:
        driver.finish(packet, QUICK)
    for packet in driver.send():
        driver.finish(packet, QUICK)
    driver.scheduler.add_items(job, 100)
    assert len({packet.worker for packet in driver.send()}) == 2


# -- who gets what ----


def test_all_workers_are_asked_for_at_once() -> None:
    assert Driver(3, ready=False).started == [1, 2, 3]


def test_nothing_is_sent_to_a_worker_that_is_not_ready() -> None:
    driver = Driver(ready=False)
    driver.job(1)
    assert driver.encode() == []
    driver.scheduler.worker_ready(1)
    assert spans(driver.encode()) == [(0, 1)]


def test_items_go_out_in_order() -> None:
    driver = Driver()
    driver.job(3)
    first, second = driver.send()
    driver.finish(first)
    assert spans([first, second, *driver.send()]) == [(0, 1), (1, 2), (2, 3)]


def test_jobs_are_served_in_the_order_of_their_items() -> None:
    driver = Driver()
    first, second = driver.job(1), driver.job(1)
    assert [packet.job for packet in driver.encode()] == [first, second]


def test_a_worker_holds_at_most_a_window_of_packets() -> None:
    driver = Driver(2, window=3)
    driver.job(100)
    assert sorted(packet.worker for packet in driver.encode()) == [1, 1, 1, 2, 2, 2]


def test_each_worker_gets_one_packet_before_any_gets_two() -> None:
    driver = Driver(2)
    driver.job(3)
    assert len({packet.worker for packet in driver.encode()[:2]}) == 2


def test_of_the_idle_workers_the_one_that_worked_last_goes_on() -> None:
    driver = Driver(3)
    driver.job(3)
    packets = {packet.worker: packet for packet in driver.send()}
    for worker in (1, 3, 2):
        driver.finish(packets[worker])
    driver.job(1)
    assert [packet.worker for packet in driver.encode()] == [2]


def test_items_that_take_no_time_share_a_packet() -> None:
    driver = Driver()
    driver.job(8, seconds=QUICK)
    assert spans(driver.encode()) == [(0, 4), (4, 6)]


def test_the_items_of_a_chunk_are_never_separated() -> None:
    driver = Driver()
    driver.job(7, grain=3)
    first, second = driver.send()
    driver.finish(first)
    assert spans([first, second, *driver.send()]) == [(0, 3), (3, 6), (6, 7)]


def test_measured_time_is_kept_per_chunk() -> None:
    driver = Driver()
    job = driver.job(6, grain=3)
    driver.scheduler.answered(1, driver.send()[0].seq, 3, 0.6, True)
    assert job.seconds == pytest.approx(0.6)


def test_a_worker_with_room_is_hungry() -> None:
    driver = Driver()
    driver.job(1)
    assert driver.scheduler.hungry
    driver.job(1)
    assert not driver.scheduler.hungry


# -- answers ----


def test_a_job_is_finished_by_its_last_answer() -> None:
    driver = Driver()
    job = driver.job(2)
    first, second = driver.send()
    driver.finish(second)
    assert driver.take("finished") == []
    driver.finish(first)
    assert driver.take("finished") == [(job.id,)]
    assert not driver.scheduler.busy


def test_a_job_that_is_not_closed_is_not_finished() -> None:
    driver = Driver()
    job = driver.job(1, closed=False)
    driver.finish(driver.send()[0])
    assert driver.take("finished") == []
    driver.scheduler.close_job(job)
    driver.scheduler.close_job(job)
    assert driver.take("finished") == [(job.id,)]


def test_an_empty_job_is_finished_as_it_is_closed() -> None:
    driver = Driver()
    job = driver.job(0)
    assert driver.take("finished") == [(job.id,)]


def test_a_partial_answer_resolves_items_and_leaves_the_packet_where_it_is() -> None:
    driver = Driver()
    job = driver.job(8, seconds=QUICK)
    packet = driver.send()[0]
    driver.scheduler.answered(1, packet.seq, 3, 0.1, False)
    assert (job.resolved, packet.done, driver.encode()) == (3, 3, [])


def test_what_a_final_answer_leaves_over_waits_again_before_all_else() -> None:
    driver = Driver()
    driver.job(8, seconds=QUICK)
    packet = driver.send()[0]
    driver.scheduler.answered(1, packet.seq, 1, 1.0, True)
    assert driver.encode() == []  # not behind what was to come after it
    driver.finish(driver.scheduler.workers[1].inflight[2])
    assert spans(driver.encode())[0] == (1, 2)


def test_an_answer_without_a_time_teaches_nothing() -> None:
    driver = Driver()
    job = driver.job(8, seconds=QUICK)
    packet = driver.send()[0]
    driver.scheduler.answered(1, packet.seq, 4, 0.0, False)
    assert (job.resolved, job.seconds) == (4, QUICK)


# -- taking back, stealing, splitting ----


def test_an_idle_worker_has_an_unread_packet_taken_back_from_a_loaded_one() -> None:
    driver = Driver(2)
    driver.job(4)
    packets = driver.send()
    for packet in packets:
        if packet.worker == 2:
            driver.finish(packet)
    driver.encode()
    assert driver.take("take_back") == [(1, 0)]
    unread = next(p for p in reversed(packets) if p.worker == 1)
    driver.scheduler.taken_back(1, unread.seq)
    assert [(p.worker, p.start) for p in driver.encode()] == [(2, unread.start)]


def test_only_a_packet_of_several_chunks_can_be_divided() -> None:
    driver = Driver(2)
    driver.job(12, grain=3)
    packets = driver.send()
    assert [packet.divisible for packet in packets] == [packet.stop - packet.start > 3 for packet in packets]
    assert not packets[-1].divisible
    driver.job(1000, seconds=QUICK)
    driver.finish(packets[0])
    assert driver.send()[0].divisible


def test_a_worker_whose_packets_were_all_taken_back_gets_what_waits() -> None:
    driver = Driver(1)
    dropped = driver.job(2, seconds=1.0)
    packets = driver.send()
    driver.job(1)
    assert not driver.encode()
    driver.scheduler.drop(dropped, end=False)
    for (worker, _), packet in zip(driver.take("take_back"), packets, strict=True):
        driver.scheduler.taken_back(worker, packet.seq)  # type: ignore[arg-type]
    assert [packet.job.id for packet in driver.encode()] == [2]


def test_a_worker_that_has_read_all_its_packets_keeps_them() -> None:
    driver = Driver()
    driver.job(2)
    driver.send()
    driver.scheduler.taken_back(1, None)
    assert driver.encode() == []


def test_a_packet_that_was_answered_before_it_was_taken_back_stays_answered() -> None:
    driver = Driver()
    job = driver.job(1)
    packet = driver.send()[0]
    driver.finish(packet)
    driver.scheduler.taken_back(1, packet.seq)
    assert job.resolved == 1
    assert driver.encode() == []


def test_a_packet_is_taken_back_however_little_work_it_seems_to_hold() -> None:
    driver = Driver(2)
    driver.job(4, seconds=1e-6, grain=1)
    for job in driver.scheduler.jobs.values():
        job.packet = 1
    packets = driver.send()
    for packet in packets:
        if packet.worker == 2:
            driver.finish(packet, 1e-9)
    assert driver.take("take_back") == [(1, 0)]  # what is in front of it may take for ever


def test_a_packet_that_is_being_pickled_is_not_taken_back() -> None:
    driver = Driver(2)
    driver.job(4)
    packets = driver.encode()
    for packet in packets:
        if packet.worker == 2:
            assert driver.scheduler.encoded(packet)
            driver.finish(packet)
    assert driver.take("take_back") == []


def test_a_packet_that_does_not_pickle_is_split_into_its_chunks() -> None:
    driver = Driver()
    driver.job(8, seconds=QUICK)
    packet = driver.encode()[0]
    driver.scheduler.split(packet)
    assert not driver.scheduler.encoded(packet)
    assert driver.encode() == []  # not behind what was to come after it
    driver.finish(driver.scheduler.workers[1].inflight[2])
    assert spans(driver.encode()) == [(0, 1), (1, 2)]


def test_only_what_was_split_travels_alone() -> None:
    driver = Driver(window=1)
    driver.job(40, seconds=QUICK)
    driver.scheduler.split(driver.encode()[0])
    seen = []
    while packets := driver.send():
        seen += spans(packets)
        driver.finish(packets[0], QUICK)
    assert [stop - start for start, stop in seen[:20]] == [1] * 20
    assert seen[20][1] - seen[20][0] > 1


def test_a_chunk_that_does_not_pickle_is_done_with() -> None:
    driver = Driver()
    job = driver.job(2)
    driver.scheduler.unencodable(driver.encode()[0])
    assert job.resolved == 1
    driver.scheduler.check()


def test_a_packet_that_was_withdrawn_is_not_written() -> None:
    driver = Driver()
    driver.job(1)
    packet = driver.encode()[0]
    driver.scheduler.worker_gone(1)
    assert not driver.scheduler.encoded(packet)


def test_after_a_full_pipe_the_packet_waits_until_that_worker_has_answered_another() -> None:
    driver = Driver()
    driver.job(2)
    first, second = driver.send()
    driver.scheduler.unsent(second)
    assert driver.encode() == []
    driver.finish(first)
    assert spans(driver.encode()) == [(1, 2)]


def test_a_packet_that_one_worker_has_no_room_for_goes_to_another() -> None:
    driver = Driver(2, window=1)
    driver.job(2)
    packets = {packet.worker: packet for packet in driver.send()}
    driver.finish(packets[2])
    driver.job(1)
    third = driver.send()[0]
    driver.finish(packets[1])
    driver.scheduler.unsent(third)
    assert [packet.worker for packet in driver.encode()] == [third.worker]  # an idle worker's pipe is empty: try again


# -- cancelling ----


def test_an_item_that_waits_can_be_cancelled() -> None:
    driver = Driver(window=1)
    job = driver.job(3)
    packet = driver.send()[0]
    assert driver.scheduler.cancel(job, 1, 2) == 1
    driver.finish(packet)
    assert spans(driver.encode()) == [(2, 3)]


def test_an_item_that_a_worker_holds_is_not_cancelled() -> None:
    driver = Driver()
    job = driver.job(1)
    assert driver.scheduler.cancel(job, 0, 1) == 0
    assert spans(driver.encode()) == [(0, 1)]


def test_to_cancel_all_that_waits_finishes_the_job() -> None:
    driver = Driver(ready=False)
    job = driver.job(5)
    assert driver.scheduler.cancel(job, 0, 5) == 5
    assert driver.take("finished") == [(job.id,)]


def test_to_cancel_one_jobs_items_leaves_anothers() -> None:
    driver = Driver(ready=False)
    first, second = driver.job(5), driver.job(5)
    assert driver.scheduler.cancel(first, 0, 5) == 5
    assert second.waiting == 5


def test_the_holder_of_a_packet_that_was_sent_is_known() -> None:
    driver = Driver()
    job = driver.job(2)
    packets = driver.encode()
    assert driver.scheduler.holder(job, 0) is None
    for packet in packets:
        driver.scheduler.encoded(packet)
    assert driver.scheduler.holder(job, 0) is driver.scheduler.holder(job, 1) is driver.scheduler.workers[1]


def test_an_item_that_is_being_encoded_is_withdrawn() -> None:
    driver = Driver()
    job = driver.job(2)
    (first, _) = driver.encode()
    assert driver.scheduler.withdraw(job, 0) == 1
    assert not driver.scheduler.encoded(first)
    assert driver.scheduler.withdraw(job, 0) == 0
    assert job.resolved == 1


def test_the_runner_of_an_item_behind_another_is_known() -> None:
    driver = Driver()
    job = driver.job(8, seconds=QUICK)
    packet = driver.send()[0]
    assert driver.scheduler.runner(job, packet.start) is None
    if packet.stop - packet.start > 1:
        assert driver.scheduler.runner(job, packet.start + 1) is driver.scheduler.workers[1]


# -- deaths ----


def test_packets_that_a_dead_worker_never_began_run_elsewhere() -> None:
    driver = Driver()
    driver.job(2)
    driver.send()
    driver.scheduler.worker_gone(1, begun=0, cause=CAUSE)
    assert driver.take("lost") == []
    assert driver.take("start") == [(2, 0)]
    driver.scheduler.worker_ready(2)
    assert spans(driver.encode()) == [(0, 1), (1, 2)]


def test_the_packet_that_it_ran_is_lost_and_the_next_is_not() -> None:
    driver = Driver()
    job = driver.job(2)
    first, _ = driver.send()
    driver.scheduler.worker_gone(1, begun=first.seq, item=0, cause=CAUSE)
    assert driver.take("lost") == [(job.id, 0, 1, CAUSE, DIED)]
    assert job.waiting == 1


def test_the_item_that_it_ran_is_lost_and_those_behind_it_are_not() -> None:
    driver = Driver()
    job = driver.job(16, seconds=QUICK)
    packet = driver.send()[0]
    assert (packet.start, packet.stop) == (0, 8)
    driver.scheduler.answered(1, packet.seq, 3, 0.0, False)
    driver.scheduler.worker_gone(1, begun=packet.seq, item=3, cause=CAUSE)
    assert driver.take("lost") == [(job.id, 3, 4, CAUSE, DIED)]
    assert job.waiting == 12


def test_all_that_one_report_covers_may_be_lost() -> None:
    driver = Driver()
    job = driver.job(16, seconds=QUICK)
    packet = driver.send()[0]
    driver.scheduler.worker_gone(1, begun=packet.seq, item=2, width=2, cause=CAUSE)
    assert driver.take("lost") == [(job.id, 0, 4, CAUSE, DIED)]  # 0 and 1 were done, but their results are gone with it


def test_what_it_began_is_lost_in_whole_chunks() -> None:
    driver = Driver()
    job = driver.job(24, seconds=QUICK, grain=3)
    packet = driver.send()[0]
    assert (packet.start, packet.stop) == (0, 12)
    driver.scheduler.worker_gone(1, begun=packet.seq, item=3, width=3, cause=CAUSE)
    assert driver.take("lost") == [(job.id, 0, 6, CAUSE, DIED)]


def test_a_packet_of_which_it_began_no_item_is_not_lost() -> None:
    driver = Driver()
    job = driver.job(16, seconds=QUICK)
    packet = driver.send()[0]
    driver.scheduler.worker_gone(1, begun=packet.seq, item=None, cause=CAUSE)
    assert driver.take("lost") == []
    assert job.waiting == 16


def test_nothing_is_lost_with_a_worker_that_dies_between_two_items() -> None:
    driver = Driver()
    job = driver.job(16, seconds=QUICK)
    packet = driver.send()[0]
    driver.scheduler.answered(1, packet.seq, 3, 0.0, False)  # from its log, read after its death
    driver.scheduler.worker_gone(1, begun=packet.seq, item=2, cause=CAUSE)  # 2 is the item it ran last
    assert driver.take("lost") == []
    assert job.waiting == 13


def test_nothing_is_lost_with_a_worker_that_dies_with_every_result_in_its_log() -> None:
    driver = Driver()
    job = driver.job(1)
    packet = driver.send()[0]
    driver.scheduler.answered(1, packet.seq, 1, 0.0, False)
    driver.scheduler.worker_gone(1, begun=packet.seq, item=None, cause=CAUSE)
    assert driver.take("lost") == []
    assert driver.take("finished") == [(job.id,)]


def test_a_packet_that_was_pickled_too_long_to_be_sent_is_not_lost() -> None:
    driver = Driver()
    driver.job(2)
    slow, quick = driver.encode()
    assert driver.scheduler.encoded(quick)  # another thread was quicker: the second packet is written first
    driver.scheduler.worker_gone(1, begun=quick.seq, item=1, cause=CAUSE)
    assert [(start, stop) for _, start, stop, *_ in driver.take("lost")] == [(1, 2)]
    assert slow.job.waiting == 1


def test_a_death_fails_the_job_only_in_part_and_then_finishes_it() -> None:
    driver = Driver()
    job = driver.job(1)
    driver.scheduler.worker_gone(1, begun=driver.send()[0].seq, item=0, cause=CAUSE)
    assert [command[0] for command in driver.scheduler.take()] == ["lost", "finished", "start"]
    assert job.resolved == 1


def test_an_idle_worker_that_dies_is_replaced() -> None:
    driver = Driver(2)
    driver.scheduler.worker_gone(1, cause=CAUSE)
    assert driver.take("start") == [(3, 0)]


# -- workers that do not start ----


def fail_starts(driver: Driver, times: int) -> None:
    for _ in range(times):
        starting = [number for number, worker in driver.scheduler.workers.items() if worker.state == "starting"]
        driver.scheduler.worker_gone(starting[0], cause=CAUSE)


def test_a_worker_that_fails_to_start_is_tried_again() -> None:
    driver = Driver(ready=False)
    driver.job(1)
    fail_starts(driver, 2)
    assert driver.take("unstartable") == []
    assert driver.take("start") == [(2, 0), (3, 0)]


def test_after_three_failed_starts_what_waits_is_unstartable() -> None:
    driver = Driver(ready=False)
    job = driver.job(5)
    fail_starts(driver, 3)
    assert driver.take("unstartable") == [(job.id, 0, 5, 3, CAUSE, DIED)]
    assert driver.take("finished") == [(job.id,)]
    assert driver.scheduler.alive == 0


def test_new_items_are_an_occasion_to_try_again() -> None:
    driver = Driver(ready=False)
    fail_starts(driver, 3)
    driver.take("start")
    job = driver.job(1)
    assert driver.take("start") == [(4, 0)]
    fail_starts(driver, 2)
    assert driver.take("unstartable") == []
    fail_starts(driver, 1)
    assert driver.take("unstartable") == [(job.id, 0, 1, 3, CAUSE, DIED)]


def test_failed_starts_count_only_in_a_row() -> None:
    driver = Driver(2, ready=False)
    driver.job(1)
    fail_starts(driver, 2)
    driver.scheduler.worker_ready(max(driver.scheduler.workers))
    fail_starts(driver, 2)
    assert driver.take("unstartable") == []


def test_while_one_worker_works_failed_starts_of_another_fail_nothing() -> None:
    driver = Driver(2, ready=False)
    driver.scheduler.worker_ready(1)
    driver.job(10)
    fail_starts(driver, 3)
    assert driver.take("unstartable") == []
    assert driver.scheduler.alive == 1


def test_a_worker_that_was_ready_shows_that_workers_can_start() -> None:
    driver = Driver(2, maxtasksperchild=1, ready=False)
    driver.scheduler.worker_ready(1)
    driver.job(2)
    packet = driver.send()[0]
    fail_starts(driver, 3)
    driver.take("start")
    driver.finish(packet)
    assert driver.take("retire") == [(1,)]
    assert driver.take("start") == [(5, 0), (6, 1)]
    driver.scheduler.worker_gone(1)
    assert driver.take("unstartable") == []


# -- maxtasksperchild ----


def test_a_worker_gets_no_more_tasks_than_it_may_run() -> None:
    driver = Driver(maxtasksperchild=1)
    driver.job(3)
    assert spans(driver.encode()) == [(0, 1)]


def test_a_worker_that_has_run_its_tasks_is_retired_and_replaced() -> None:
    driver = Driver(maxtasksperchild=1)
    driver.job(2)
    driver.finish(driver.send()[0])
    assert driver.take("retire") == [(1,)]
    assert driver.take("start") == [(2, 0)]
    driver.scheduler.worker_ready(2)
    assert spans(driver.encode()) == [(1, 2)]


def test_the_end_of_a_retired_worker_starts_no_other() -> None:
    driver = Driver(maxtasksperchild=1)
    driver.job(1)
    driver.finish(driver.send()[0])
    assert driver.take("start") == [(2, 0)]
    assert driver.scheduler.busy
    driver.scheduler.worker_gone(1)
    assert driver.take("start") == []


def test_a_worker_gets_the_slot_of_the_one_that_it_replaces() -> None:
    driver = Driver(3)
    driver.scheduler.worker_gone(2)
    assert driver.take("start") == [(4, 1)]
    driver.scheduler.worker_gone(3)
    driver.scheduler.worker_gone(1)
    assert sorted(driver.take("start")) == [(5, 2), (6, 0)]


def test_a_chunk_counts_as_one_task() -> None:
    driver = Driver(maxtasksperchild=2)
    driver.job(30, seconds=QUICK, grain=3)
    assert spans(driver.encode()) == [(0, 6)]


def test_a_packet_that_never_began_does_not_count() -> None:
    driver = Driver(maxtasksperchild=1)
    driver.job(1)
    packet = driver.send()[0]
    driver.scheduler.taken_back(1, packet.seq)
    driver.job(1)  # an event, so that the same worker may be chosen again
    assert [packet.worker for packet in driver.encode()] == [1]


def test_what_is_handed_back_does_not_count() -> None:
    driver = Driver(maxtasksperchild=4)
    driver.job(80, seconds=QUICK)
    packet = driver.send()[0]
    assert (packet.start, packet.stop) == (0, 4)
    driver.scheduler.answered(1, packet.seq, 1, 1.0, True)
    assert driver.take("retire") == []
    assert spans(driver.encode())[0][0] == 1


# -- the end ----


def test_a_closed_pool_with_nothing_to_do_retires_its_workers() -> None:
    driver = Driver(2)
    driver.scheduler.close()
    assert driver.take("retire") == [(1,), (2,)]
    assert driver.scheduler.busy
    driver.scheduler.worker_gone(1)
    driver.scheduler.worker_gone(2)
    assert not driver.scheduler.busy
    assert driver.take("start") == []


def test_a_closed_pool_finishes_its_work_first() -> None:
    driver = Driver()
    driver.job(2)
    driver.scheduler.close()
    first, second = driver.send()
    driver.finish(first)
    assert driver.take("retire") == []
    driver.finish(second)
    assert driver.take("retire") == [(1,)]


def test_a_worker_that_dies_in_a_closed_pool_is_replaced_only_if_something_waits() -> None:
    driver = Driver(2)
    driver.job(2)
    driver.scheduler.close()
    packets = driver.send()
    driver.scheduler.worker_gone(packets[0].worker, begun=packets[0].seq, item=packets[0].start, cause=CAUSE)
    assert driver.take("start") == []
    driver.scheduler.worker_gone(packets[1].worker, cause=CAUSE)
    assert driver.take("start") == [(3, 0)]


def test_the_last_task_of_a_closed_pools_last_worker_retires_it_once() -> None:
    driver = Driver(maxtasksperchild=1)
    driver.job(1)
    driver.scheduler.close()
    driver.finish(driver.send()[0])
    assert driver.take("retire") == [(1,)]
    assert driver.take("start") == []


def test_a_task_that_does_not_pickle_may_be_the_last_of_a_closed_pool() -> None:
    driver = Driver(maxtasksperchild=1)
    driver.job(1)
    driver.scheduler.close()
    driver.scheduler.unencodable(driver.encode()[0])
    assert driver.take("retire") == [(1,)]
    assert driver.take("start") == []


def test_a_worker_that_starts_as_the_pool_closes_is_retired() -> None:
    driver = Driver(ready=False)
    driver.scheduler.close()
    assert driver.take("retire") == [(1,)]
    driver.scheduler.worker_ready(1)
    driver.scheduler.worker_gone(1)
    assert not driver.scheduler.workers


def test_terminate_returns_what_was_not_resolved() -> None:
    driver = Driver()
    job = driver.job(4, seconds=1.0)
    first, second = driver.send()
    driver.finish(first)
    driver.scheduler.answered(1, second.seq, 0, 0.0, False)
    assert sorted((start, stop) for _, start, stop in driver.scheduler.terminate()) == [(1, 2), (2, 3), (3, 4)]
    assert job.resolved == 4


def test_after_terminate_nothing_is_sent_or_started() -> None:
    driver = Driver(2)
    driver.job(4)
    packets = driver.encode()
    driver.scheduler.terminate()
    assert not driver.scheduler.encoded(packets[0])
    driver.scheduler.answered(packets[1].worker, packets[1].seq, 1, 1.0, True)
    driver.scheduler.worker_gone(1)
    driver.scheduler.worker_gone(2)
    assert driver.scheduler.take() == []
    assert not driver.scheduler.busy


def test_a_failure_that_nobody_has_taken_yet_survives_terminate() -> None:
    driver = Driver()
    job = driver.job(1)
    driver.scheduler.worker_gone(1, begun=driver.send()[0].seq, item=0, cause=CAUSE)
    driver.scheduler.terminate()
    assert driver.take("lost") == [(job.id, 0, 1, CAUSE, DIED)]


def test_a_worker_that_nobody_has_started_yet_is_not_waited_for_after_terminate() -> None:
    driver = Driver()
    driver.scheduler.worker_gone(1, cause=CAUSE)
    driver.scheduler.terminate()
    assert driver.take("start") == []
    assert not driver.scheduler.workers


def test_a_worker_may_become_ready_after_terminate() -> None:
    driver = Driver(ready=False)
    driver.scheduler.terminate()
    driver.scheduler.worker_ready(1)
    driver.scheduler.check()


# -- lazy jobs ----


def test_a_lazy_job_has_room_for_twice_what_the_workers_may_hold() -> None:
    driver = Driver(3, window=2)
    job = driver.job(closed=False, lazy=True)
    assert driver.scheduler.room(job, 0, None) == 2 * 3 * 2
    assert driver.scheduler.room(job, 10, None) == 2


def test_a_lazy_job_of_quick_items_is_read_further_ahead() -> None:
    driver = Driver()
    job = driver.job(closed=False, lazy=True)
    before = driver.scheduler.room(job, 0, None)
    job.seconds = QUICK
    assert driver.scheduler.room(job, 0, None) > before


def test_a_buffersize_is_the_room_whatever_the_speed() -> None:
    driver = Driver()
    job = driver.job(closed=False, lazy=True, seconds=QUICK)
    assert driver.scheduler.room(job, 3, 5) == 2


def test_items_that_follow_each_other_wait_as_one_span() -> None:
    driver = Driver(ready=False)
    job = driver.job(2, closed=False, lazy=True, seconds=QUICK)
    driver.scheduler.add_items(job, 2)
    driver.scheduler.worker_ready(1)
    assert spans(driver.encode())[0] == (0, 4)


def test_a_lazy_job_may_go_on_after_the_pool_was_closed() -> None:
    driver = Driver()
    job = driver.job(1, closed=False, lazy=True)
    driver.scheduler.close()
    driver.finish(driver.send()[0])
    assert driver.take("retire") == []
    driver.scheduler.add_items(job, 1)
    driver.scheduler.close_job(job)
    driver.finish(driver.send()[0])
    assert driver.take("retire") == [(1,)]


def test_a_packet_shows_what_it_is() -> None:
    driver = Driver()
    driver.job(1)
    assert repr(driver.encode()[0]) == "<Packet 1 encoding: job 1[0:1] to worker 1>"


# -- what makes no progress ----


def test_a_worker_that_makes_no_progress_is_cut_short() -> None:
    driver = Driver()
    job = driver.job(8, seconds=QUICK)
    packet = driver.send()[0]
    assert driver.scheduler.wants_ticks
    driver.scheduler.tick()
    assert not driver.take("cut"), "it has just been given work"
    driver.scheduler.tick()
    behind = driver.scheduler.workers[1].inflight[packet.seq + 1]
    assert driver.take("take_back") == [(1, packet.seq)]  # it must not begin that when it is cut short
    assert driver.take("cut") == []
    driver.scheduler.taken_back(1, behind.seq)
    assert driver.encode() == []
    driver.scheduler.tick()
    assert driver.take("cut") == [(1,)]
    stop = packet.start + 1
    rest = packet.stop - stop
    driver.scheduler.cut_off(1, packet.seq, stop)
    driver.scheduler.check()
    assert packet.stop == stop
    assert job.waiting >= rest
    assert driver.encode() == []
    driver.finish(packet)
    assert spans(driver.encode())[0][0] == stop


def test_a_worker_that_answers_is_not_cut_short() -> None:
    driver = Driver()
    driver.job(80, seconds=QUICK)
    packet = driver.send()[0]
    for _ in range(packet.stop - packet.start - 1):
        driver.scheduler.answered(1, packet.seq, 1, QUICK, False)
        driver.scheduler.tick()
        assert not driver.take("cut")


def test_what_is_cut_off_runs_once() -> None:
    driver = Driver(2)
    driver.job(8, seconds=QUICK)
    packets = driver.send()
    packet = packets[0]
    stop = packet.start + 1
    if stop < packet.stop:
        driver.scheduler.cut_off(packet.worker, packet.seq, stop)
    driver.scheduler.cut_off(packet.worker, packet.seq, stop)  # told twice
    driver.scheduler.answered(packet.worker, packet.seq, 1, QUICK, True)
    driver.scheduler.cut_off(packet.worker, packet.seq, stop)  # told too late
    driver.scheduler.check()


def test_a_packet_that_is_withdrawn_whole_waits_again_and_its_worker_may_die() -> None:
    driver = Driver(2)
    job = driver.job(4, grain=1, seconds=1.0)
    packets = driver.send()
    unread = packets[-1]
    driver.scheduler.cut_off(unread.worker, unread.seq, unread.start)
    driver.scheduler.check()
    driver.scheduler.worker_gone(unread.worker, 0, None, 1, CAUSE)
    driver.scheduler.check()
    assert not driver.take("lost")
    assert job.resolved == 0


def test_an_exhausted_worker_gets_back_its_allowance_for_what_is_cut_off() -> None:
    driver = Driver(1, maxtasksperchild=4)
    driver.job(8, seconds=QUICK)
    packets = driver.send()
    packet = packets[-1]
    driver.scheduler.cut_off(1, packet.seq, packet.start)
    driver.scheduler.check()


def test_a_failed_steal_is_tried_again() -> None:
    """A packet in a plain pipe is withdrawn with a delay, and not at every moment."""
    driver = Driver(2)
    driver.job(4, grain=1, seconds=1.0)
    driver.send()
    other = 2
    for packet in list(driver.scheduler.workers[other].inflight.values()):
        driver.scheduler.answered(other, packet.seq, 1, 1.0, True)
    assert driver.take("take_back") == [(1, 0)]
    driver.scheduler.taken_back(1, None)
    assert driver.scheduler.wants_ticks
    driver.scheduler.tick()
    assert driver.take("take_back") == [(1, 0)]


def test_workers_that_run_dry_get_longer_packets() -> None:
    driver = Driver()
    driver.job(100_000, seconds=1e-4)
    driver.send()
    worker = driver.scheduler.workers[1]
    sizes = []
    for _ in range(40):
        for packet in list(worker.inflight.values()):  # both are answered when the pool comes to look
            driver.scheduler.answered(
                1, packet.seq, packet.stop - packet.start, 1e-4 * (packet.stop - packet.start), True
            )
        sizes.append(max(packet.stop - packet.start for packet in driver.send()))
    assert driver.scheduler.runs_dry
    assert max(sizes) > 10 * min(sizes)


def test_terminate_names_no_job_that_is_over() -> None:
    """Its last packet may have been answered, but not finally: a result was looked up in the worker's log."""
    driver = Driver()
    driver.job(1)
    (packet,) = driver.send()
    driver.scheduler.answered(1, packet.seq, 1, 0.0, False)
    assert driver.take("finished") == [(1,)]
    assert driver.scheduler.terminate() == []


# -- limits and further attempts ----

TIMED = Limits(timeout=5.0)
TWICE = Limits(retries=1, outlives=frozenset([DIED, OVERDUE]))


def fail(driver: Driver, packet: Packet, now: float = 0.0) -> None:
    """All of the packet has failed, and may begin again."""
    again = (
        [(packet.start, packet.stop)]
        if driver.scheduler.may_begin_again(packet.job, packet.start, packet.start + 1)
        else []
    )
    driver.scheduler.answered(packet.worker, packet.seq, packet.stop - packet.start, 1.0, True, again, now)


def test_an_item_that_failed_begins_again_as_often_as_its_job_allows() -> None:
    driver = Driver()
    job = driver.job(1, limits=Limits(retries=2))
    attempts = []
    for _ in range(3):
        (packet,) = driver.send()
        attempts.append(packet.attempt)
        assert job.resolved == 0
        fail(driver, packet)
    assert attempts == [1, 2, 3]
    assert driver.encode() == []
    assert driver.take("finished") == [(1,)]


def test_an_attempt_that_succeeds_is_the_last() -> None:
    driver = Driver()
    job = driver.job(1, limits=TWICE)
    fail(driver, driver.send()[0])
    driver.finish(driver.send()[0])
    assert job.resolved == 1
    assert job.attempts == {}
    assert driver.take("finished") == [(1,)]


def test_what_begins_again_does_not_wait_for_a_fresh_worker_while_another_one_is_idle() -> None:
    driver = Driver(2, maxtasksperchild=1)
    job = driver.job(1, limits=Limits(retries=1))
    (packet,) = driver.send()
    driver.scheduler.answered(packet.worker, packet.seq, 1, 1.0, True, [(0, 1)], 1.0)
    (again,) = driver.send()
    assert (again.start, again.attempt) == (0, 2)
    assert again.worker != packet.worker
    driver.finish(again)
    assert driver.take("finished") == [(job.id,)]


def test_what_begins_again_travels_alone() -> None:
    driver = Driver(window=1)
    job = driver.job(8, seconds=QUICK, closed=False, limits=TWICE)
    (packet,) = driver.send()
    driver.scheduler.answered(
        1, packet.seq, packet.stop - packet.start, 1e-6, True, [(packet.start + 2, packet.start + 3)]
    )
    driver.scheduler.add_items(job, 8)
    packets = driver.send()
    assert spans(packets)[0] == (2, 3)
    assert [packet.attempt for packet in packets] == [2]
    driver.scheduler.worker_gone(1, begun=0, item=None, cause=CAUSE)  # it never began it: this does not count
    driver.scheduler.worker_ready(2)
    (packet,) = driver.send()
    assert (packet.start, packet.stop, packet.attempt) == (2, 3, 2)


def test_an_item_that_failed_waits_until_its_time_has_come() -> None:
    driver = Driver()
    driver.job(1, limits=Limits(retries=2, backoff=0.5))
    fail(driver, driver.send()[0], now=10.0)
    assert driver.encode() == []
    assert driver.scheduler.release(10.2) == pytest.approx(0.3)
    assert driver.encode() == []
    assert driver.scheduler.release(10.5) is None
    fail(driver, driver.send()[0], now=11.0)
    assert driver.scheduler.release(11.0) == pytest.approx(1.0)  # twice as long each time


def test_a_pool_is_busy_while_an_item_waits_for_its_time() -> None:
    driver = Driver()
    driver.job(1, limits=Limits(retries=1, backoff=1.0))
    fail(driver, driver.send()[0])
    driver.scheduler.close()
    assert driver.take("retire") == []
    assert driver.scheduler.busy


def test_an_item_that_waits_for_its_time_can_be_cancelled() -> None:
    driver = Driver()
    job = driver.job(2, limits=Limits(retries=1, backoff=1.0))
    for packet in driver.send():
        fail(driver, packet)
    assert driver.scheduler.cancel(job, 0, 1) == 1
    assert driver.scheduler.cancel(job, 0, 1) == 0
    driver.scheduler.release(1.0)
    assert spans(driver.send()) == [(1, 2)]
    assert job.attempts == {1: 1}


def test_terminate_returns_what_waits_for_its_time() -> None:
    driver = Driver()
    job = driver.job(1, limits=Limits(retries=1, backoff=1.0))
    fail(driver, driver.send()[0])
    assert driver.scheduler.terminate() == [(job, 0, 1)]
    assert driver.scheduler.release(2.0) is None
    assert driver.encode() == []


def test_an_item_outlives_the_deaths_of_its_workers_that_its_job_allows() -> None:
    driver = Driver()
    job = driver.job(1, limits=TWICE)
    (packet,) = driver.send()
    driver.scheduler.worker_gone(1, begun=packet.seq, item=0, cause=CAUSE)
    assert driver.take("lost") == []
    driver.scheduler.worker_ready(2)
    (packet,) = driver.send()
    assert packet.attempt == 2
    driver.scheduler.worker_gone(2, begun=packet.seq, item=0, cause=CAUSE)
    assert driver.take("lost") == [(job.id, 0, 1, CAUSE, DIED)]


def test_with_a_death_that_its_job_does_not_allow_it_is_lost() -> None:
    driver = Driver()
    job = driver.job(1, limits=Limits(retries=5, outlives=frozenset([OVERDUE])))
    (packet,) = driver.send()
    driver.scheduler.worker_gone(1, begun=packet.seq, item=0, cause=CAUSE)
    assert driver.take("lost") == [(job.id, 0, 1, CAUSE, DIED)]


def test_those_that_began_together_with_a_killer_begin_again_alone_and_one_is_quarantined() -> None:
    driver = Driver(window=1)
    job = driver.job(16, seconds=QUICK, limits=TWICE)
    (packet,) = driver.send()
    driver.scheduler.worker_gone(1, begun=packet.seq, item=0, width=4, cause=CAUSE)
    killer, worker, lost = 2, 2, []
    while not lost:
        driver.scheduler.worker_ready(worker)
        (packet,) = driver.send()
        assert packet.stop - packet.start == 1
        while packet.start != killer:
            driver.finish(packet)
            (packet,) = driver.send()
        driver.scheduler.worker_gone(worker, begun=packet.seq, item=killer, cause=CAUSE)
        lost = driver.take("lost")
        worker += 1
    assert lost == [(job.id, killer, killer + 1, CAUSE, DIED)]


def test_a_worker_whose_item_runs_for_too_long_is_ended_and_says_why() -> None:
    driver = Driver()
    job = driver.job(3, limits=TIMED)
    first, _ = driver.send()
    assert driver.scheduler.overdue(4.0, {1: (first.seq, 0, 1.0)}) == pytest.approx(2.0)
    assert driver.take("expel") == []
    driver.scheduler.overdue(6.0, {1: (first.seq, 0, 1.0)})
    assert driver.take("expel") == [(1, first.seq, 0, 1.0)]
    driver.scheduler.worker_gone(1, begun=first.seq, item=0, cause=CAUSE)
    assert driver.take("lost") == [(job.id, 0, 1, CAUSE, OVERDUE)]
    assert job.waiting == 2


def test_without_a_limit_nothing_has_to_be_looked_at() -> None:
    driver = Driver()
    driver.job(2)
    first, _ = driver.send()
    assert not driver.scheduler.timed
    assert driver.scheduler.overdue(1e9, {1: (first.seq, 0, 0.0)}) is None
    assert driver.take("expel") == []


def test_an_item_that_ends_before_its_worker_does_is_not_lost_nor_is_the_next_one_overdue() -> None:
    driver = Driver()
    job = driver.job(2, limits=TIMED)
    first, second = driver.send()
    driver.scheduler.overdue(6.0, {1: (first.seq, 0, 1.0)})
    driver.finish(first)
    driver.scheduler.worker_gone(1, begun=second.seq, item=1, cause=CAUSE)
    assert driver.take("lost") == [(job.id, 1, 2, CAUSE, DIED)]


def test_workers_that_do_not_become_ready_in_time_are_ended_and_what_waits_is_told_why() -> None:
    scheduler = Scheduler(1, start_timeout=10.0)
    scheduler.open()
    job = scheduler.add_job(1)
    scheduler.add_items(job, 1)
    now = 0.0
    for worker in (1, 2, 3):
        assert ("start", worker, 0) in scheduler.take()
        assert scheduler.timed
        assert scheduler.overdue(now, {}) == pytest.approx(10.0)  # it is not launched yet
        assert scheduler.overdue(now + 4.0, {worker: (0, 0, now)}) == pytest.approx(6.0)
        assert scheduler.take() == []
        now += 10.0
        scheduler.overdue(now, {worker: (0, 0, now - 10.0)})
        assert scheduler.take() == [("expel", worker, 0, 0, now - 10.0)]
        scheduler.worker_gone(worker, cause=CAUSE)
        scheduler.check()
    assert scheduler.take() == [("unstartable", 1, 0, 1, 3, CAUSE, OVERDUE)]


def test_a_worker_that_is_let_go_before_it_was_ready_has_to_become_so_in_time() -> None:
    scheduler = Scheduler(1, start_timeout=10.0)
    scheduler.open()
    scheduler.close()
    assert scheduler.take() == [("start", 1, 0), ("retire", 1)]
    assert scheduler.timed
    scheduler.overdue(10.0, {1: (0, 0, 0.0)})
    assert scheduler.take() == [("expel", 1, 0, 0, 0.0)]
    scheduler.worker_gone(1, cause=CAUSE)
    assert not scheduler.timed
    assert not scheduler.busy


def test_a_worker_that_became_ready_in_time_is_not_looked_at_any_more() -> None:
    scheduler = Scheduler(1, start_timeout=10.0)
    scheduler.open()
    scheduler.worker_ready(1)
    assert not scheduler.timed
    assert scheduler.overdue(1e9, {}) is None


def test_nothing_more_is_sent_to_a_worker_that_is_to_be_ended() -> None:
    driver = Driver()
    driver.job(1, closed=False)
    (first,) = driver.send()
    job = driver.job(3)
    (on_its_way,) = driver.encode()
    worker = driver.scheduler.workers[1]
    driver.scheduler.condemn(worker, first, 0, 0.0, KILLED)
    assert not driver.scheduler.encoded(on_its_way)
    assert job.waiting == 3
    assert driver.encode() == []
    driver.finish(first)  # it came to its end after all
    assert len(driver.encode()) == 2


def unpickling_kills(driver: Driver, bad: set[int]) -> tuple[list[tuple[int, int]], int]:
    """Play workers that die when they unpickle any of these; return what was lost, and how many have died."""
    lost: list[tuple[int, int]] = []
    deaths = 0
    while packets := driver.encode():
        for packet in packets:
            if not driver.scheduler.encoded(packet):  # its worker has died
                continue
            if bad & set(range(packet.start, packet.stop)):
                driver.scheduler.worker_gone(packet.worker, packet.seq, packet.start, 0, CAUSE)
                deaths += 1
            else:
                driver.finish(packet, 1e-6)
        lost += [(start, stop) for _, start, stop, *_ in driver.take("lost")]  # type: ignore[misc]
        for number, _ in driver.take("start"):
            driver.scheduler.worker_ready(number)  # type: ignore[arg-type]
    return lost, deaths


def test_of_items_that_are_unpickled_together_only_the_killers_are_lost() -> None:
    driver = Driver()
    job = driver.job(1000, seconds=QUICK)
    lost, deaths = unpickling_kills(driver, {3, 500})
    assert sorted(lost) == [(3, 4), (500, 501)]
    assert deaths < 25
    assert job.resolved == 1000


def test_where_all_items_kill_it_is_given_up_soon() -> None:
    driver = Driver()
    job = driver.job(100_000, seconds=QUICK)
    lost, deaths = unpickling_kills(driver, set(range(100_000)))
    assert sum(stop - start for start, stop in lost) == 100_000
    assert deaths < 500
    assert job.resolved == 100_000


def test_of_items_whose_unpickling_takes_too_long_each_travels_alone_then() -> None:
    driver = Driver(window=1)
    job = driver.job(64, seconds=QUICK, limits=TIMED)
    (packet,) = driver.send()
    assert packet.stop - packet.start > 1
    driver.scheduler.overdue(9.0, {1: (packet.seq, packet.start, 0.0)})
    driver.scheduler.worker_gone(1, packet.seq, packet.start, 0, CAUSE)
    assert driver.take("lost") == []
    driver.scheduler.worker_ready(2)
    (packet,) = driver.send()
    assert packet.stop - packet.start == 1
    driver.scheduler.overdue(20.0, {2: (packet.seq, packet.start, 10.0)})
    driver.scheduler.worker_gone(2, packet.seq, packet.start, 0, CAUSE)
    assert driver.take("lost") == [(job.id, 0, 1, CAUSE, OVERDUE)]


# -- places of a cluster ----


def test_with_no_place_items_wait_and_more_places_take_them() -> None:
    driver = Driver(0)
    job = driver.job(4)
    assert driver.take("start") == driver.encode() == []
    assert driver.scheduler.room(job, 0, None) > 0  # a stream is read before the first place is there
    driver.scheduler.resize(2)
    started = driver.take("start")
    for worker, _ in started:
        driver.scheduler.worker_ready(worker)  # type: ignore[arg-type]
    assert [slot for _, slot in started] == [0, 1]
    assert spans(driver.send()) == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_when_there_are_fewer_places_the_last_slots_are_given_up() -> None:
    driver = Driver(3, window=1)
    driver.job(1)
    (packet,) = driver.send()
    last = driver.scheduler.workers[packet.worker]
    assert last.slot == 2
    driver.scheduler.resize(1)
    assert {worker for (worker,) in driver.take("retire")} == set(driver.started[1:])
    driver.finish(packet)  # what it holds comes to its end
    assert driver.take("finished") == [(1,)]
    driver.scheduler.resize(0)
    assert driver.take("retire") == [(driver.started[0],)]
    driver.job(1)
    assert driver.encode() == []
    driver.scheduler.resize(2)
    assert [slot for _, slot in driver.take("start")] == [0, 1]


def test_a_place_that_is_given_up_before_it_was_asked_for_is_forgotten_by_terminate() -> None:
    scheduler = Scheduler(1)
    scheduler.open()
    scheduler.resize(0)
    scheduler.terminate()
    scheduler.check()
    assert not scheduler.busy
    assert scheduler.take() == []


def test_terminate_keeps_the_number_of_places() -> None:
    driver = Driver(2)
    driver.scheduler.terminate()
    driver.scheduler.resize(1)  # the cluster's news came late
    driver.scheduler.check()


def test_a_packet_is_lost_and_its_worker_stays() -> None:
    driver = Driver(1)
    driver.job(4, seconds=QUICK)
    packet, *rest = driver.send()
    driver.scheduler.packet_lost(packet.worker, packet.seq, CAUSE, 0.0)
    assert driver.take("lost") == [(1, packet.start, packet.stop, CAUSE, DIED)]
    for other in rest:
        driver.finish(other)
    for other in driver.send():
        driver.finish(other)
    assert driver.take("finished") == [(1,)]
    assert driver.take("start") == []
    assert driver.scheduler.workers[packet.worker].state == "ready"


def test_a_worker_that_was_to_be_ended_with_a_lost_packet_takes_others() -> None:
    driver = Driver(1)
    driver.job(4, limits=Limits(timeout=1.0))
    first, _ = driver.send()
    worker = driver.scheduler.workers[first.worker]
    driver.scheduler.overdue(10.0, {worker.id: (first.seq, first.start, 5.0)})
    assert len(driver.take("expel")) == 1
    driver.scheduler.packet_lost(worker.id, first.seq, CAUSE, 10.0)
    assert worker.condemned is None
    assert spans(driver.send()) == [(2, 3)]


def test_the_items_of_a_lost_packet_begin_again_one_by_one() -> None:
    driver = Driver(1)
    driver.job(8, seconds=QUICK, limits=Limits(retries=1, outlives=frozenset({DIED})))
    lost = driver.send()
    for packet in lost:
        driver.scheduler.packet_lost(packet.worker, packet.seq, CAUSE, 0.0)
    again: list[Packet] = []
    while packets := driver.send():
        again += packets
        for packet in packets:
            driver.finish(packet)
    assert sum(stop - start for start, stop in spans(again)) == 8
    failed = {item for packet in lost for item in range(packet.start, packet.stop)}
    assert {packet.start for packet in again if packet.attempt == 2} == failed
    assert driver.take("lost") == []
    assert driver.take("finished") == [(1,)]


@pytest.mark.parametrize("torn", ["a start", "an assignment", "an answer"])
def test_after_a_torn_step_the_ends_of_workers_bring_it_to_rest(torn: str) -> None:
    """Ctrl-C came between any two lines of a step; what it was about is then half done."""
    driver = Driver(2, ready=torn != "a start")
    driver.job(20, limits=Limits(retries=1, outlives=frozenset({DIED})))
    scheduler = driver.scheduler
    packets = driver.send()
    if torn == "an assignment":
        scheduler.ready.popleft()
    elif torn == "an answer":
        packets[0].done += 1
    scheduler.abandon()
    for worker in driver.started:
        begun = next((packet for packet in packets if packet.worker == worker), None)
        scheduler.worker_gone(worker, begun.seq if begun else 0, begun.start if begun else None, cause=CAUSE)  # type: ignore[arg-type]
    assert not scheduler.workers
    assert (scheduler.unresolved, scheduler.alive, scheduler.take(), scheduler.busy) == (0, 0, [], False)
    scheduler.check()
