"""Supervision: which child is started, stopped, restarted or given up, and when. The rest is `procflow.supervisor`.

A child:
    IDLE -> STARTING            launched: it is due, and its turn has come
    STARTING -> READY           it said that it is ready, or need not
    STARTING, READY -> STOPPING  told to end: in its turn (`leaves`), or as it was not ready in time, or silent too long
    STARTING, READY, STOPPING -> IDLE    it ended, and will be started again at `due`
    IDLE, STARTING, READY, STOPPING -> DONE    it ended, or never began, and will not be started again

The supervisor:
    NEW -> UP        start()                UP -> ENDING     stop(), or too many restarts
    ENDING -> OVER   the last child has ended                NEW -> OVER    stop()

V1  A child runs at most once at a time: between two Launches of it lies its end.
V2  In the first start and in the restart of a group, a child is launched only when all before it are READY or DONE.
V3  Children that leave are told so one at a time, the last of them first; none is launched meanwhile.
V4  At most `max_restarts` restarts are decided within any `within` seconds; the next one ends the supervisor instead.
V5  Nothing is launched unless the supervisor is UP; it is OVER only if no child runs.
V6  Who is told to end is killed after its grace, or when the time for the whole end is over, unless it has ended.
V7  A temporary child is launched once; a transient one not again after it finished by itself.

Time is what the caller says it is, and never goes back. Each call returns what is to be done and told, in this order.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from math import inf

from procflow.scheduling.lifecycle import (
    ChildSpec,
    Command,
    Event,
    Exited,
    GaveUp,
    Kill,
    Launch,
    Ready,
    Restarted,
    Started,
    Strategy,
    Terminate,
    Why,
)

__all__ = ["Child", "Phase", "State", "Supervision"]


class Phase(Enum):
    """Where a child is in its life."""

    IDLE = "idle"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    DONE = "done"


class State(Enum):
    """Where the supervisor is in its life."""

    NEW = "new"
    UP = "up"
    ENDING = "ending"
    OVER = "over"


class Child:
    """One child; only Supervision changes it."""

    __slots__ = (
        "spec", "phase", "pid", "launches", "in_a_row", "since", "ordered", "leaves", "cause",
        "due", "kill_at", "killed", "ready_by", "silent_at",
    )  # fmt: skip

    def __init__(self, spec: ChildSpec, due: float) -> None:
        self.spec = spec
        self.phase = Phase.IDLE
        self.pid: int | None = None
        self.launches = 0
        self.in_a_row = 0  # restarts since it last ran for `within` seconds
        self.since = due  # of the launch; of being ready, from then on
        self.ordered = True  # whether it waits for those before it (V2)
        self.leaves = False  # whether it is to end in its turn (V3)
        self.cause: Why | None = None  # why it was told to end
        self.due = due
        self.kill_at: float | None = None
        self.killed = False
        self.ready_by: float | None = None
        self.silent_at: float | None = None

    @property
    def runs(self) -> bool:
        """Whether there is a process, or is about to be."""
        return self.phase in (Phase.STARTING, Phase.READY, Phase.STOPPING)


class Supervision:
    """The decisions of one supervisor.

    Attributes:
        state: See the module's table.
        children: In the order of their start. A child's number is its place here.
        gave_up: The event of having given up, if it has.
    """

    def __init__(self, strategy: Strategy, max_restarts: int, within: float, seed: int = 0) -> None:
        self.state = State.NEW
        self.children: list[Child] = []
        self.gave_up: GaveUp | None = None
        self._strategy, self._max_restarts, self._within, self._seed = strategy, max_restarts, within, seed
        self._restarts: deque[float] = deque()  # when each of the last `max_restarts` was decided
        self._over_by: float | None = None  # when the grace of the whole end is over
        self._out: list[Command | Event] = []

    # ---- what is so

    @property
    def idle(self) -> bool:
        """Whether no child runs or will run."""
        return all(child.phase is Phase.DONE for child in self.children)

    @property
    def settled(self) -> bool:
        """Whether each child is ready, or done."""
        return all(child.phase in (Phase.READY, Phase.DONE) for child in self.children)

    def deadline(self, now: float) -> float | None:
        """Return when `tick` is due, if nothing else happens before."""
        times: list[float | None] = []
        for child in self.children:
            if child.phase is Phase.IDLE and child.due > now:  # else it waits for others, and not for a time
                times.append(child.due)
            elif child.phase is Phase.STARTING:
                times.append(child.ready_by)
            elif child.phase is Phase.READY:
                times.append(child.silent_at)
            elif child.phase is Phase.STOPPING and not child.killed:
                times.append(child.kill_at)
            if child.runs and not child.killed:
                times.append(self._over_by)
        return min((time for time in times if time is not None and time < inf), default=None)

    # ---- what happens

    def add(self, spec: ChildSpec, now: float) -> list[Command | Event]:
        """Take on another child, after those that are there."""
        self.children.append(Child(spec, now))
        return self._settled(now)

    def start(self, now: float) -> list[Command | Event]:
        """Begin."""
        if self.state is State.NEW:
            self.state = State.UP
        return self._settled(now)

    def stop(self, now: float, grace: float | None) -> list[Command | Event]:
        """End: the children in reverse, each with its own grace, and all of it within `grace` seconds."""
        if self.state is State.NEW:
            self.state = State.OVER
        elif self.state is State.UP:
            self._end()
        if grace is not None:
            self._over_by = now + grace if self._over_by is None else min(self._over_by, now + grace)
        return self._settled(now)

    def launched(self, number: int, pid: int | None, now: float) -> list[Command | Event]:
        """A Launch was carried out."""
        child = self.children[number]
        child.pid, child.since = pid, now
        name, restarts = child.spec.name, child.launches - 1
        self._out.append(Restarted(name, pid, restarts) if restarts else Started(name, pid))
        if child.phase is Phase.STARTING:  # else it was told to end before it was there
            if child.spec.ready_within is None:
                self._become_ready(child, now)
            else:
                child.ready_by = now + child.spec.ready_within
        return self._settled(now)

    def launch_failed(self, number: int, detail: str, now: float) -> list[Command | Event]:
        """A Launch could not be carried out."""
        child = self.children[number]
        child.pid, child.cause = None, "not started"
        return self._ended(child, None, now, detail)

    def became_ready(self, number: int, now: float) -> list[Command | Event]:
        """A child said that it is ready."""
        child = self.children[number]
        if child.phase is Phase.STARTING:
            self._out.append(Ready(child.spec.name, now - child.since))
            self._become_ready(child, now)
        return self._settled(now)

    def beat(self, number: int, now: float) -> list[Command | Event]:
        """A child said that it is alive."""
        child = self.children[number]
        if child.phase is Phase.READY and child.spec.heartbeat is not None:
            child.silent_at = now + child.spec.heartbeat
        return self._settled(now)

    def exited(self, number: int, exitcode: int | None, now: float, detail: str = "") -> list[Command | Event]:
        """A child has ended."""
        return self._ended(self.children[number], exitcode, now, detail)

    def tick(self, now: float) -> list[Command | Event]:
        """Nothing happened but time."""
        return self._settled(now)

    # ---- what follows from it

    def _become_ready(self, child: Child, now: float) -> None:
        child.phase, child.since, child.ready_by = Phase.READY, now, None
        child.silent_at = None if child.spec.heartbeat is None else now + child.spec.heartbeat

    def _ended(self, child: Child, exitcode: int | None, now: float, detail: str) -> list[Command | Event]:
        why: Why = child.cause or ("finished" if exitcode == 0 else "crashed")
        lived = now - child.since if child.phase is Phase.READY else 0.0
        leaves, pid = child.leaves, child.pid
        child.phase, child.pid, child.leaves, child.cause = Phase.IDLE, None, False, None
        child.kill_at = child.ready_by = child.silent_at = None
        child.killed, child.ordered, child.due = False, True, max(child.due, now)
        restart = child.spec.restart
        over = restart == "temporary" or (restart == "transient" and why == "finished")
        in_turn = leaves or self.state is not State.UP
        if over or self.state is not State.UP:
            child.phase = Phase.DONE
        place = len(self._out)
        delay = None if over or in_turn else self._restart(child, lived, why, now, detail)
        self._out.insert(place, Exited(child.spec.name, pid, exitcode, why, delay, detail))
        return self._settled(now)

    def _restart(self, child: Child, lived: float, why: Why, now: float, detail: str) -> float | None:
        """Decide on the restart of a child that fell; return its delay, or None after giving up."""
        while self._restarts and self._restarts[0] <= now - self._within:
            self._restarts.popleft()
        if len(self._restarts) >= self._max_restarts:
            self.gave_up = GaveUp(child.spec.name, why, self._max_restarts, self._within, detail)
            self._out.append(self.gave_up)
            self._end()
            return None
        self._restarts.append(now)
        if lived >= self._within:
            child.in_a_row = 0
        delay = child.spec.backoff.delay(child.in_a_row, f"{self._seed}:{child.spec.name}")
        child.in_a_row += 1
        child.due = now + delay
        child.ordered = self._strategy != "one_for_one"
        for other in self._group(child):
            if other.runs:
                other.leaves = True
            other.ordered = True
            other.due = max(other.due, child.due)
        return delay

    def _group(self, child: Child) -> list[Child]:
        """Those that are restarted with `child`."""
        if self._strategy == "one_for_one":
            return []
        first = self.children.index(child) + 1 if self._strategy == "rest_for_one" else 0
        return [other for other in self.children[first:] if other is not child]

    def _end(self) -> None:
        self.state = State.ENDING
        for child in self.children:
            child.leaves = child.runs
            if not child.runs:
                child.phase = Phase.DONE

    def _settled(self, now: float) -> list[Command | Event]:
        """Do what is due, and hand out what has come together."""
        self._note_overdue(now)
        self._tell_next_to_leave(now)
        self._kill_overdue(now)
        self._launch_due(now)
        if self.state is State.ENDING and not any(child.runs for child in self.children):
            self.state = State.OVER
        out, self._out = self._out, []
        return out

    def _note_overdue(self, now: float) -> None:
        for number, child in enumerate(self.children):
            if child.phase is Phase.STARTING and child.ready_by is not None and now >= child.ready_by:
                self._tell_to_end(number, "not ready", now)
            elif child.phase is Phase.READY and child.silent_at is not None and now >= child.silent_at:
                self._tell_to_end(number, "silent", now)

    def _tell_next_to_leave(self, now: float) -> None:
        for number in reversed(range(len(self.children))):
            child = self.children[number]
            if child.leaves:
                if child.phase is not Phase.STOPPING:
                    self._tell_to_end(number, "stopped", now)
                return

    def _tell_to_end(self, number: int, why: Why, now: float) -> None:
        child = self.children[number]
        grace = child.spec.shutdown
        child.phase, child.cause = Phase.STOPPING, why
        child.kill_at = None if grace is None else now + grace
        self._out.append(Terminate(number, grace))

    def _kill_overdue(self, now: float) -> None:
        all_due = self._over_by is not None and now >= self._over_by
        for number, child in enumerate(self.children):
            due = all_due or (child.kill_at is not None and now >= child.kill_at)
            if child.runs and due and not child.killed:
                if child.phase is not Phase.STOPPING:  # its turn has not come, and will not
                    child.phase, child.cause = Phase.STOPPING, "stopped"
                child.killed = True
                self._out.append(Kill(number))

    def _launch_due(self, now: float) -> None:
        if self.state is not State.UP or any(child.leaves for child in self.children):
            return
        all_before = True  # are ready, or done
        for number, child in enumerate(self.children):
            if child.phase is Phase.IDLE and child.due <= now and (all_before or not child.ordered):
                child.phase, child.since = Phase.STARTING, now
                child.launches += 1
                self._out.append(Launch(number))
            if child.phase not in (Phase.READY, Phase.DONE):
                all_before = False

    # ---- for the tests

    def check(self) -> None:
        """Assert what must hold between two calls, as far as the state alone tells."""
        running = [child for child in self.children if child.runs]
        leaving = [child for child in self.children if child.leaves]
        assert all(child.runs for child in leaving), "V3: who leaves runs"
        told = [child for child in leaving if child.phase is Phase.STOPPING]
        if leaving:
            assert leaving[-1] in told, "V3: the last of those that leave has been told"
            assert all(child.cause != "stopped" or child.killed for child in told[:-1]), "V3: one at a time"
        assert len(self._restarts) <= self._max_restarts, "V4"
        assert self.state in (State.UP, State.ENDING) or not running, "V5"
        if self.state is State.ENDING:
            assert leaving == running, "V5: at the end all leave"
            assert running, "V5: with the last, it is over"
        for child in self.children:
            if child.phase is Phase.STOPPING and child.spec.shutdown is not None:
                assert child.killed or child.kill_at is not None, "V6"
            assert child.spec.restart != "temporary" or child.launches <= 1, "V7"
            assert (child.cause is not None) == (child.phase is Phase.STOPPING)
        assert not self._out, "what was decided was handed out"
