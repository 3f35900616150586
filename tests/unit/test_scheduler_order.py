"""A task may wait for what tasks that were submitted before it do: however many share packets, none of them is stuck.

That is so in a pool whose workers take one task after the other from one queue, and programs rely on it. Here workers
hold packets of many tasks, and some more behind; so it takes S10, and a look at workers that make no progress.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from procflow.scheduling.scheduler import Job, Packet, Scheduler

QUICK = 1e-6  # seconds: so many of these share a packet


@dataclass
class Process:
    """A worker: it runs one item after the other, and waits at one whose turn has not come."""

    pipe: list[Packet] = field(default_factory=list)
    running: Packet | None = None
    begun: int = 0  # the packet that it began last
    item: int = 0  # that it runs, or waits at
    stop: int = 0


class World:
    """A pool of such workers, and one job. Item `i` waits until item `needs[i]`, an earlier one, is done."""

    def __init__(self, workers: int, needs: list[int]) -> None:
        self.scheduler = Scheduler(workers)
        self.needs = needs
        self.done: set[int] = set()
        self.scheduler.open()
        self.job: Job = self.scheduler.add_job(1)
        self.job.seconds, self.job.packet = QUICK, 1000
        self.processes: dict[int, Process] = {}
        self.perform()

    def perform(self) -> None:
        while commands := self.scheduler.take():
            for command in commands:
                if command[0] == "start":
                    self.processes[command[1]] = Process()
                    self.scheduler.worker_ready(command[1])
                elif command[0] == "encode":
                    if self.scheduler.encoded(command[1]):
                        self.processes[command[1].worker].pipe.append(command[1])
                elif command[0] == "take_back":
                    self.take_back(command[1], command[2])
                elif command[0] == "cut":
                    self.cut(command[1])
                self.scheduler.check()

    def take_back(self, number: int, begun: int) -> None:
        process = self.processes[number]
        if process.pipe and begun in (0, process.begun):
            self.scheduler.taken_back(number, process.pipe.pop(0).seq)
        else:
            self.scheduler.taken_back(number, None)

    def cut(self, number: int) -> None:
        process = self.processes[number]
        if process.running is not None and process.item < process.stop:
            process.stop = process.item + 1
            self.scheduler.cut_off(number, process.running.seq, process.stop)

    def submit(self, count: int) -> None:
        self.scheduler.add_items(self.job, count)
        self.perform()

    def step(self, number: int) -> bool:
        """Let a worker go on by one item; False if it can't."""
        process = self.processes[number]
        if process.running is None:
            if not process.pipe:
                return False
            process.running = packet = process.pipe.pop(0)
            process.begun, process.item, process.stop = packet.seq, packet.start, packet.stop
        packet, item = process.running, process.item
        if self.needs[item] < item and self.needs[item] not in self.done:
            return False
        self.done.add(item)
        process.item += 1
        if process.item >= process.stop:
            process.running = None
            self.scheduler.answered(number, packet.seq, process.item - packet.start, 0.0, True)
            self.perform()
        return True

    def tick(self) -> None:
        self.scheduler.tick()
        self.perform()


needing = st.lists(st.integers(0, 9), min_size=20, max_size=80).map(lambda back: [i - b for i, b in enumerate(back)])


@settings(deadline=None, max_examples=300)
@given(st.integers(2, 3), needing, st.lists(st.integers(0, 9), min_size=20, max_size=200))
def test_a_task_may_wait_for_an_earlier_one(workers: int, needs: list[int], events: list[int]) -> None:
    needs = [need if need >= 0 else index for index, need in enumerate(needs)]  # these wait for nothing
    world = World(workers, needs)
    for event in events:
        left = len(needs) - world.job.added
        if event < 2 and left:
            world.submit(min(left, 1 + event * 20))
        elif event < 7:
            world.step(1 + event % workers)
        else:
            world.tick()
    if world.job.added < len(needs):
        world.submit(len(needs) - world.job.added)
    for _ in range(10 * len(needs)):
        while any(world.step(number) for number in world.processes):
            pass
        world.tick()
    assert world.done == set(range(len(needs))), (world.scheduler.ready, world.processes)
    assert world.job.resolved == len(needs)
