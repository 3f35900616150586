"""Supervision by numbers: no process, no clock. The table and the invariants are those of the module."""

from __future__ import annotations

import math
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from procflow.scheduling.lifecycle import (
    Backoff,
    ChildSpec,
    Command,
    Event,
    Exited,
    GaveUp,
    Kill,
    Launch,
    Ready,
    Restart,
    Restarted,
    Started,
    Strategy,
    Terminate,
)
from procflow.scheduling.supervision import Phase, State, Supervision

AT_ONCE = Backoff(first=0.0, jitter=0.0)


class World:
    """Plays the processes: launches at once, and notes what was asked for."""

    def __init__(self, strategy: Strategy = "one_for_one", max_restarts: int = 3, within: float = 5.0) -> None:
        self.machine = Supervision(strategy, max_restarts, within, seed=1)
        self.now = 0.0
        self.asked: list[tuple[str, int]] = []
        self.told: list[Event] = []
        self.launched_at: list[float] = []
        self.alive: set[int] = set()
        self.fails_to_launch: set[int] = set()

    def add(self, **options: object) -> None:
        name = f"c{len(self.machine.children)}"
        given = {"backoff": AT_ONCE, **options}
        self.do(self.machine.add(ChildSpec(name, **given), self.now))  # type: ignore[arg-type]

    def do(self, outputs: list[Command | Event]) -> None:
        todo = deque(outputs)
        while todo:
            item = todo.popleft()
            if isinstance(item, Launch):
                assert item.child not in self.alive, "V1: a child runs at most once at a time"
                assert self.machine.state is State.UP, "V5"
                self.asked.append(("launch", item.child))
                if item.child in self.fails_to_launch:
                    todo.extend(self.machine.launch_failed(item.child, "no room", self.now))
                else:
                    self.alive.add(item.child)
                    self.launched_at.append(self.now)
                    todo.extend(self.machine.launched(item.child, 100 + item.child, self.now))
            elif isinstance(item, Terminate | Kill):
                assert item.child in self.alive
                self.asked.append((type(item).__name__.lower(), item.child))
            else:
                self.told.append(item)

    def start(self) -> None:
        self.do(self.machine.start(self.now))

    def exit(self, number: int, code: int = 1) -> None:
        self.alive.discard(number)
        self.do(self.machine.exited(number, code, self.now))

    def after(self, seconds: float) -> None:
        self.now += seconds
        self.do(self.machine.tick(self.now))

    def take_asked(self) -> list[tuple[str, int]]:
        asked, self.asked = self.asked, []
        return asked


def running(count: int = 3, strategy: Strategy = "one_for_one", **options: object) -> World:
    world = World(strategy)
    for _ in range(count):
        world.add(**options)
    world.start()
    assert world.take_asked() == [("launch", number) for number in range(count)]
    return world


def test_children_start_in_order_each_when_the_one_before_is_ready() -> None:
    world = World()
    world.add(ready_within=5.0)
    world.add()
    world.start()
    assert world.take_asked() == [("launch", 0)]
    assert not world.machine.settled
    world.now = 2.0
    world.do(world.machine.became_ready(0, world.now))
    assert world.take_asked() == [("launch", 1)]
    assert world.told == [Started("c0", 100), Ready("c0", 2.0), Started("c1", 101)]
    assert world.machine.settled


def test_children_stop_in_reverse_one_at_a_time() -> None:
    world = running()
    world.do(world.machine.stop(1.0, None))
    assert world.take_asked() == [("terminate", 2)]
    world.exit(2, -15)
    assert world.take_asked() == [("terminate", 1)]
    world.exit(1, 0)
    world.exit(0, 0)
    assert world.machine.state is State.OVER
    assert [event.why for event in world.told if isinstance(event, Exited)] == ["stopped"] * 3


def test_what_does_not_end_in_its_grace_is_killed_once() -> None:
    world = running(2, shutdown=3.0)
    world.do(world.machine.stop(world.now, None))
    assert world.machine.deadline(0.0) == 3.0
    world.after(2.9)
    assert world.take_asked() == [("terminate", 1)]
    world.after(0.2)
    world.after(5.0)
    assert world.take_asked() == [("kill", 1)]
    assert world.machine.deadline(world.now) is None


def test_the_grace_of_the_whole_end_kills_all_that_is_left() -> None:
    world = running(3, shutdown=None)
    world.do(world.machine.stop(world.now, 2.0))
    assert world.machine.deadline(0.0) == 2.0
    world.after(2.0)
    assert world.take_asked() == [("terminate", 2), ("kill", 0), ("kill", 1), ("kill", 2)]


@pytest.mark.parametrize(
    ("strategy", "stopped", "started"),
    [("one_for_one", [], [1]), ("one_for_all", [3, 2, 0], [0, 1, 2, 3]), ("rest_for_one", [3, 2], [1, 2, 3])],
)
def test_who_is_restarted_with_a_child(strategy: Strategy, stopped: list[int], started: list[int]) -> None:
    world = running(4, strategy)
    world.exit(1)
    for number in stopped:
        assert world.take_asked() == [("terminate", number)]
        world.exit(number, -15)
    assert world.take_asked() == [("launch", number) for number in started]
    assert [event.name for event in world.told if isinstance(event, Restarted)] == [f"c{n}" for n in started]


@pytest.mark.parametrize(
    ("restart", "code", "again"),
    [
        ("permanent", 0, True),
        ("permanent", 1, True),
        ("transient", 0, False),
        ("transient", -9, True),
        ("temporary", 0, False),
        ("temporary", 1, False),
    ],
)
def test_who_is_restarted_after_what(restart: Restart, code: int, again: bool) -> None:
    world = running(1, restart=restart)
    world.exit(0, code)
    assert world.take_asked() == ([("launch", 0)] if again else [])
    assert world.machine.idle == (not again)


def test_what_has_finished_is_not_started_again_with_its_group() -> None:
    world = running(2, "one_for_all", restart="transient")
    world.exit(0, 0)
    world.exit(1, 1)
    assert world.take_asked() == [("launch", 1)]


def test_one_restart_too_many_stops_all() -> None:
    world = running(2)
    for _ in range(3):
        world.exit(0)
    world.take_asked()
    world.exit(0)
    assert world.machine.state is State.ENDING
    assert world.take_asked() == [("terminate", 1)]
    assert world.told[-1] == GaveUp("c0", "crashed", 3, 5.0) == world.machine.gave_up
    assert world.told[-2] == Exited("c0", 100, 1, "crashed")
    world.exit(1, -15)
    assert world.machine.state is State.OVER


def test_restarts_long_ago_do_not_count() -> None:
    world = running(1)
    for _ in range(20):
        world.after(2.0)
        world.exit(0)
    assert world.machine.state is State.UP


def test_a_child_that_is_not_ready_in_time_is_ended_and_restarted() -> None:
    world = World()
    world.add(ready_within=4.0, shutdown=1.0)
    world.start()
    world.after(4.0)
    assert world.take_asked() == [("launch", 0), ("terminate", 0)]
    world.after(1.0)
    assert world.take_asked() == [("kill", 0)]
    world.exit(0, -9)
    assert world.take_asked() == [("launch", 0)]
    assert world.told[1] == Exited("c0", 100, -9, "not ready", 0.0)


def test_a_silent_child_is_ended_and_one_that_beats_is_not() -> None:
    world = running(1, heartbeat=2.0)
    for _ in range(5):
        world.after(1.5)
        world.do(world.machine.beat(0, world.now))
    assert world.take_asked() == []
    world.after(2.0)
    assert world.take_asked() == [("terminate", 0)]
    world.exit(0, 0)
    assert world.told[-2] == Exited("c0", 100, 0, "silent", 0.0)


def test_a_child_that_cannot_be_started_counts_as_fallen() -> None:
    world = World(max_restarts=2)
    world.fails_to_launch = {0}
    world.add()
    world.start()
    assert world.take_asked() == [("launch", 0)] * 3
    assert world.machine.gave_up == GaveUp("c0", "not started", 2, 5.0, "no room")
    assert world.machine.state is State.OVER


def test_backoff_grows_in_a_row_and_begins_anew_after_a_long_life() -> None:
    world = World(max_restarts=100, within=50.0)
    world.add(backoff=Backoff(first=1.0, factor=2.0, most=6.0, jitter=0.0))
    world.start()
    for delay in (1.0, 2.0, 4.0, 6.0, 6.0):
        world.exit(0)
        assert world.machine.deadline(world.now) == world.now + delay
        world.after(delay)
    world.after(50.0)
    world.exit(0)
    assert world.machine.deadline(world.now) == world.now + 1.0


def test_stop_before_start_and_stop_twice() -> None:
    world = World()
    world.add()
    world.do(world.machine.stop(0.0, None))
    world.start()
    assert (world.machine.state, world.asked) == (State.OVER, [])
    world = running(1)
    world.do(world.machine.stop(0.0, 9.0))
    world.do(world.machine.stop(0.0, 1.0))
    world.after(1.0)
    assert world.take_asked() == [("terminate", 0), ("kill", 0)]


@given(st.just(0.0) | st.floats(1e-3, 10), st.floats(1, 10), st.floats(0, 1), st.integers(0, 5000), st.text(max_size=5))
def test_a_delay_is_bounded_and_the_same_for_the_same_seed(
    first: float, factor: float, jitter: float, restarts: int, key: str
) -> None:
    backoff = Backoff(first, factor, 20.0, jitter)
    delay = backoff.delay(restarts, key)
    assert delay == backoff.delay(restarts, key)
    growth = math.exp(min(700.0, restarts * math.log(factor)))  # as float ** int, but for the overflow
    plain = min(20.0, first * growth)
    assert plain * (1 - jitter) * 0.999 <= delay <= plain * (1 + jitter) * 1.001


@pytest.mark.parametrize("wrong", [{"first": -1.0}, {"factor": 0.5}, {"jitter": 2.0}, {"first": 9.0, "most": 1.0}])
def test_a_backoff_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="factor >= 1"):
        Backoff(**wrong)


specs = st.fixed_dictionaries(
    {
        "restart": st.sampled_from(["permanent", "transient", "temporary"]),
        "shutdown": st.sampled_from([0.0, 1.0, 3.0]),
        "ready_within": st.sampled_from([None, None, 2.0]),
        "heartbeat": st.sampled_from([None, None, 2.0]),
        "backoff": st.sampled_from([AT_ONCE, Backoff(first=0.5)]),
    }
)


class Storm(RuleBasedStateMachine):
    """Children that start, fall, hang, and are silent at random: what must hold holds, and all can be ended."""

    @initialize(
        strategy=st.sampled_from(["one_for_one", "one_for_all", "rest_for_one"]),
        most=st.integers(0, 8),
        children=st.lists(specs, min_size=1, max_size=5),
        unable=st.sets(st.integers(0, 4), max_size=1),
    )
    def begin(self, strategy: Strategy, most: int, children: list[dict[str, object]], unable: set[int]) -> None:
        self.world = World(strategy, most, 5.0)
        for options in children:
            self.world.add(**options)
        self.world.fails_to_launch = unable if most % 2 else set()
        self.world.start()

    @rule(data=st.data(), code=st.sampled_from([0, 1, -9]))
    @precondition(lambda self: self.world.alive)
    def falls(self, data: st.DataObject, code: int) -> None:
        self.world.exit(data.draw(st.sampled_from(sorted(self.world.alive))), code)

    @rule(data=st.data())
    @precondition(lambda self: self.world.alive)
    def says_ready(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.world.alive)))
        self.world.do(self.world.machine.became_ready(number, self.world.now))

    @rule(data=st.data())
    @precondition(lambda self: self.world.alive)
    def beats(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.world.alive)))
        self.world.do(self.world.machine.beat(number, self.world.now))

    @rule()
    def waits_for_its_deadline(self) -> None:
        deadline = self.world.machine.deadline(self.world.now)
        if deadline is not None:
            assert deadline >= self.world.now
            self.world.after(deadline - self.world.now)
            after = self.world.machine.deadline(self.world.now)
            assert after is None or after > self.world.now, "a deadline that is past must have been met"

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.after(seconds)

    @rule(options=specs)
    @precondition(lambda self: self.world.machine.state is State.UP and len(self.world.machine.children) < 7)
    def one_more(self, options: dict[str, object]) -> None:
        self.world.add(**options)

    @rule(grace=st.sampled_from([None, 0.0, 2.0]))
    @precondition(lambda self: len(self.world.told) > 12)
    def stops(self, grace: float | None) -> None:
        self.world.do(self.world.machine.stop(self.world.now, grace))

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "world"):
            self.world.machine.check()
            runs = {number for number, child in enumerate(self.world.machine.children) if child.runs}
            assert runs == self.world.alive, "V1"

    @invariant()
    def something_will_happen(self) -> None:
        """Whatever is not ready or done waits for a time, or for a child that runs."""
        if hasattr(self, "world") and self.world.machine.state is State.UP:
            machine = self.world.machine
            waits = any(child.phase in (Phase.IDLE, Phase.STARTING) for child in machine.children)
            assert not waits or self.world.alive or machine.deadline(self.world.now) is not None

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        world.do(world.machine.stop(world.now, 4.0))
        end, world.asked = world.now + 4.0, []
        while world.now < end and world.alive:  # nobody obeys: all are killed at the latest when the grace is over
            deadline = world.machine.deadline(world.now)
            world.after(end - world.now if deadline is None else max(deadline - world.now, 0.001))
        killed = {number for number, child in enumerate(world.machine.children) if child.killed}
        assert world.alive <= killed
        for number in sorted(world.alive):
            world.exit(number, -9)
        assert world.machine.state is State.OVER


TestStorm = Storm.TestCase
TestStorm.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


@given(st.lists(st.floats(0, 3), max_size=60), st.integers(0, 5))
def test_never_more_restarts_within_the_time_than_allowed(gaps: list[float], most: int) -> None:
    world = World(max_restarts=most, within=5.0)
    world.add()
    world.start()
    for gap in gaps:
        world.after(gap)
        if world.alive:
            world.exit(0)
    again = world.launched_at[1:]
    for place in range(len(again) - most):
        assert again[place + most] - again[place] >= 5.0
