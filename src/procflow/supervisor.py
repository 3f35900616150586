"""Supervisor: keeps a set of processes running. `scheduling.supervision` decides; this carries it out.

One thread per supervisor owns the decisions, the children and the callbacks. Other threads only post to it and read
what it published.

    new -> running -> ended         start(); stop(), giving up, or the end of a supervisor above

P1  Only the supervisor's thread calls the machine, launches, signals and reaps.
P2  User code (callbacks) never runs under the lock, and what it raises is logged and ends nothing.
P3  The thread ends only when no child runs; a process that ends without stop() stops its supervisors first.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from multiprocessing import util

from procflow.connection import wait
from procflow.context import default_context
from procflow.errors import ProcessStateError, SupervisorGaveUp
from procflow.observe.audience import Subscription
from procflow.scheduling.lifecycle import (
    Backoff,
    ChildSpec,
    Exited,
    GaveUp,
    Kill,
    Launch,
    Ready,
    Restarted,
    Started,
    Terminate,
)
from procflow.scheduling.supervision import State, Supervision
from procflow.shown import told
from procflow.start import owned, sigterm
from procflow.start.main_module import stop_replay
from procflow.supervised import ChildInfo, ProcessMember, SupervisorMember, in_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType
    from typing import Any, Self

    from procflow.context import Context
    from procflow.scheduling.lifecycle import Command, Event, Restart, Strategy
    from procflow.supervised import Member

    Outputs = list[Command | Event]

__all__ = ["Backoff", "ChildInfo", "Exited", "GaveUp", "Ready", "Restarted", "Started", "Supervisor"]

log = logging.getLogger("procflow.supervisor")

_STRATEGIES = ("one_for_one", "one_for_all", "rest_for_one")
_RESTARTS = ("permanent", "transient", "temporary")
_DEFAULT_BACKOFF = Backoff()


class Supervisor:
    """Starts processes in order, starts again what falls, and stops all in reverse.

    In a `with` block it starts at the beginning, and stops when the block is left. Ctrl-C and SIGTERM leave it, too: a
    supervisor that is started in the main thread turns SIGTERM into SystemExit(143) while it runs, unless the program
    has a handler of its own.

    Args:
        strategy: What is restarted with a child that fell: nothing else ("one_for_one"), all ("one_for_all"), or those
            that were added after it ("rest_for_one").
        max_restarts: How many restarts are made within any `within` seconds. One more, and the supervisor stops all
            and gives up: `SupervisorGaveUp`.
        within: In seconds. A child that ran for so long has its backoff begin anew.
        context: Where the start method of the children comes from.
        seed: Decides the jitter of the backoff; None: the system's randomness.

    Example:
        >>> def serve(): ...
        >>> supervisor = Supervisor("rest_for_one")
        >>> supervisor.add(serve, name="database")
        'database'
        >>> supervisor
        <Supervisor rest_for_one new, 1 child>
    """

    def __init__(
        self,
        strategy: Strategy = "one_for_one",
        max_restarts: int = 3,
        within: float = 5.0,
        context: Context | None = None,
        *,
        seed: int | None = None,
    ) -> None:
        if strategy not in _STRATEGIES:
            raise ValueError(f"strategy must be one of {', '.join(_STRATEGIES)}, not {strategy!r}")
        if max_restarts < 0 or within <= 0:
            raise ValueError("max_restarts must not be negative, and within must be more than 0 seconds")
        self._context = (default_context if context is None else context).get_context()
        self._options = strategy, max_restarts, within
        self._seed = int.from_bytes(os.urandom(4), "little") if seed is None else seed
        self._members: list[Member] = []  # before the start: any thread, under the lock; then the supervisor's only
        self._names: set[str] = set()
        self._callbacks: list[Callable[[Event], object]] = []
        self._machine = Supervision(*self._options, self._seed)
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._inbox: deque[Callable[[float], Outputs]] = deque()  # any thread appends, then wakes
        self._wakes = (-1, -1)
        self._view: tuple[ChildInfo, ...] = ()  # published, under the lock
        self._state, self._settled, self._idle = State.NEW, False, False  # likewise
        self._nested = False
        self._listener: Callable[[], None] | None = None  # of the supervisor above
        self._holds_sigterm = False

    # ---- what is supervised

    def add(  # noqa: PLR0913 - each is a property of the child
        self,
        target: Callable[..., object] | Supervisor,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        restart: Restart = "permanent",
        shutdown: float | None = 5.0,
        ready: float | None = None,
        heartbeat: float | None = None,
        backoff: Backoff = _DEFAULT_BACKOFF,
    ) -> str:
        """Add a child after those that are there, and return its name. A running supervisor starts it in its turn.

        Args:
            target: Called in a process of its own with `args` and `kwargs`; or another Supervisor, which then runs
                within this one, and is restarted if it gives up.
            args: Any iterable.
            kwargs: Any mapping.
            name: Unique in this supervisor; the target's name if not given.
            restart: "permanent": always; "transient": unless it ended with exit code 0; "temporary": never.
            shutdown: The seconds between SIGTERM and SIGKILL. None: no SIGKILL, however long it takes.
            ready: The child calls `procflow.notify_ready()` within so many seconds, and later ones start only then.
                None: it is ready as soon as it runs.
            heartbeat: The child calls `procflow.heartbeat()` at least every so many seconds once it is ready, else it
                is taken to hang, and is restarted. None: it need not.
            backoff: How long it waits before each restart.

        Raises:
            ValueError: The name is taken, or an option is not one of those above.
            ProcessStateError: The supervisor has ended.
        """
        if restart not in _RESTARTS:
            raise ValueError(f"restart must be one of {', '.join(_RESTARTS)}, not {restart!r}")
        for option, seconds in (("shutdown", shutdown), ("ready", ready), ("heartbeat", heartbeat)):
            if seconds is not None and seconds < 0:
                raise ValueError(f"{option} must not be negative: it is a number of seconds")
        if isinstance(target, Supervisor):
            if target is self or target._nested or target._thread is not None:
                raise ProcessStateError(f"{target!r} runs or is supervised already, so it can't be added to {self!r}")
            target._nested = True
            ready = float("inf")  # it says so when all its own children are
        elif not callable(target):
            raise TypeError(f"target must be callable, or a Supervisor, not {type(target).__name__}")
        with self._changed:
            chosen = self._free_name(target) if name is None else name
            if chosen in self._names:
                raise ValueError(f"there is a child {chosen!r} already: names are unique in a supervisor")
            if self._state not in (State.NEW, State.UP):
                raise ProcessStateError(f"{self!r} takes no more children")
            spec = ChildSpec(chosen, restart, shutdown, ready, heartbeat, backoff)
            member: Member
            if isinstance(target, Supervisor):
                member = SupervisorMember(spec, target, self._wake)
            else:
                member = ProcessMember(spec, self._context, target, tuple(args), {} if kwargs is None else dict(kwargs))
            self._names.add(chosen)
            if self._thread is None:
                self._members.append(member)
            else:
                self._settled = self._idle = False
                self._inbox.append(lambda now: self._take_on(member, now))
        self._wake()
        return chosen

    def _free_name(self, target: object) -> str:
        plain = "supervisor" if isinstance(target, Supervisor) else str(getattr(target, "__name__", "child"))
        names = (f"{plain}-{number}" if number > 1 else plain for number in range(1, len(self._names) + 2))
        return next(name for name in names if name not in self._names)

    def subscribe(self, callback: Callable[[Event], object]) -> Subscription:
        """Have `callback(event)` called for each event, in the supervisor's thread, until the subscription is closed.

        Events are `Started`, `Ready`, `Exited`, `Restarted` and `GaveUp`; each is a log record of the logger
        "procflow.supervisor" as well. What a callback raises is logged. While it runs, nothing is restarted.
        """
        self._callbacks = [*self._callbacks, callback]

        def unsubscribe() -> None:
            self._callbacks = [other for other in self._callbacks if other is not callback]

        return Subscription(unsubscribe)

    def children(self) -> tuple[ChildInfo, ...]:
        """The children as they are now, in the order in which they were added."""
        with self._changed:
            if self._thread is None:
                return tuple(ChildInfo(member.spec.name, None, "idle", 0) for member in self._members)
            return self._view

    # ---- life

    def start(self) -> None:
        """Start the children in order, and return when all are ready, or have finished.

        Raises:
            SupervisorGaveUp: A child fell too often. All are stopped.
            ProcessStateError: It was started already, or is supervised by another one.
        """
        if self._nested or self._state is not State.NEW or self._thread is not None:
            raise ProcessStateError(f"{self!r} can't be started: it is supervised, or was started already")
        stop_replay()
        self._holds_sigterm = sigterm.take()
        try:
            self.begin(None)
            with self._changed:
                self._changed.wait_for(lambda: self._settled or self._state is State.OVER)
        except BaseException:  # Ctrl-C
            self.stop()
            raise
        if self._machine.gave_up is not None:
            self.stop()
            self._raise_if_gave_up()

    def stop(self, grace: float | None = None) -> None:
        """Stop the children in reverse, each within its own `shutdown` grace, and all of them within `grace` seconds.

        Idempotent, from any thread. In a callback it does not wait. A second Ctrl-C kills what is left.
        """
        try:
            self.ask_to_stop(grace)
            if threading.current_thread() is not self._thread:
                self._wait_over()
        finally:
            if self._state is State.OVER and self._holds_sigterm:
                self._holds_sigterm = not sigterm.give_back()

    def _wait_over(self) -> None:
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._state is State.OVER)
        except BaseException:
            self.ask_to_stop(0)
            with self._changed:
                self._changed.wait_for(lambda: self._state is State.OVER)
            raise
        finally:
            if self._state is State.OVER:
                self.wait_ended()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until no child runs or will run any more, at most `timeout` seconds; return whether it is so.

        Raises:
            SupervisorGaveUp: A child fell too often. All are stopped.
            ProcessStateError: It was not started.
        """
        if self._thread is None and self._state is State.NEW:
            raise ProcessStateError(f"{self!r} can't be joined before start()")
        with self._changed:
            over = self._changed.wait_for(lambda: self._state is State.OVER or self._idle, timeout)
        if over:
            self.stop()
            self._raise_if_gave_up()
        return over

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Stop; raise SupervisorGaveUp if that is what has happened, and nothing else did."""
        self.stop()
        if error is None:
            self._raise_if_gave_up()

    def __repr__(self) -> str:
        count = len(self._names)
        return f"<Supervisor {self._options[0]} {self._state.value}, {count} {'child' if count == 1 else 'children'}>"

    def _raise_if_gave_up(self) -> None:
        event = self._machine.gave_up
        if event is not None:
            raise SupervisorGaveUp(event.name, event.why, event.max_restarts, event.within, event.detail)

    # ---- for the supervisor above, too

    def begin(self, listener: Callable[[], None] | None) -> None:
        """Start the thread, for the first time or again; do not wait. `listener` is told of each change."""
        with self._changed:
            self._listener = listener
            self._machine = Supervision(*self._options, self._seed)
            self._inbox.clear()
            for member in self._members:
                self._machine.add(member.spec, time.monotonic())
            self._state, self._settled, self._idle = State.UP, False, False
            self._wakes = owned.pipe()
            for fd in self._wakes:
                os.set_blocking(fd, False)
            self._thread = threading.Thread(target=self._run, name="procflow supervisor", daemon=True)
            self._thread.start()

    def ask_to_stop(self, grace: float | None) -> None:
        """Have it stop; do not wait."""
        with self._changed:
            if self._thread is None:
                self._state = State.OVER
                self._changed.notify_all()
            elif self._state is not State.OVER:
                self._inbox.append(lambda now: self._machine.stop(now, grace))
        self._wake()

    def outcome(self) -> tuple[bool, int | None, str]:
        """Whether all its children are ready or done, its exit code if it has ended, and words about that."""
        with self._changed:
            code = None
            if self._state is State.OVER:
                code = 0 if self._machine.gave_up is None else 1
            gave_up = self._machine.gave_up
            words = "" if gave_up is None else f"gave up: {gave_up.name!r} {gave_up.why}"
            return self._settled, code, words

    def _wake(self) -> None:
        with self._changed:
            if self._wakes[1] >= 0:
                try:
                    os.write(self._wakes[1], b"\0")
                except BlockingIOError:
                    pass  # it is full of wake-ups

    def wait_ended(self) -> None:
        """Wait for the last steps of the thread, after `outcome` has told that it is over."""
        thread = self._thread
        if thread is not None:
            thread.join()

    # ---- the thread

    def _run(self) -> None:
        # A process that ends joins its children; those of a supervisor would never end by themselves.
        finalizer = None if self._nested else util.Finalize(None, self.stop, exitpriority=100)
        todo: deque[Command | Event] = deque(self._machine.start(time.monotonic()))
        try:
            while True:
                while todo:
                    todo.extend(self._carry_out(todo.popleft()))
                if self._machine.state is State.OVER:
                    break
                self._publish()
                todo.extend(self._wait())
        except BaseException:  # a bug: nothing is decided any more, so nothing may run on
            for member in self._members:
                member.kill()
            raise
        finally:
            if finalizer is not None:
                finalizer.cancel()
            with self._changed:
                wakes, self._wakes = self._wakes, (-1, -1)
                for fd in wakes:
                    owned.close(fd)
            self._publish(over=True)

    def _publish(self, *, over: bool = False) -> None:
        machine = self._machine
        view = tuple(
            ChildInfo(child.spec.name, child.pid, child.phase.value, max(0, child.launches - 1))
            for child in machine.children
        )
        with self._changed:
            self._view = view
            self._state = State.OVER if over else machine.state
            self._settled, self._idle = (machine.settled, machine.idle) if not self._inbox else (False, False)
            self._changed.notify_all()
        if self._listener is not None:
            self._listener()

    def _take_on(self, member: Member, now: float) -> Outputs:
        if self._machine.state is not State.UP:
            return []  # it was stopped meanwhile
        self._members.append(member)
        return self._machine.add(member.spec, now)

    def _wait(self) -> Outputs:
        """Wait for the next thing to happen, and give what follows from all that did."""
        deadline = self._machine.deadline(now := time.monotonic())
        watched = [self._wakes[0], *(item for member in self._members for item in member.watched())]
        ready = wait(watched, None if deadline is None else max(0.0, deadline - now))
        now = time.monotonic()
        out: Outputs = []
        if self._wakes[0] in ready:
            os.read(self._wakes[0], 4096)
        while self._inbox:
            out += self._inbox.popleft()(now)
        for number, member in enumerate(self._members):
            is_ready, alive = member.heard(ready)
            if is_ready:
                out += self._machine.became_ready(number, now)
            if alive:
                out += self._machine.beat(number, now)
            ended = member.reap(ready)
            if ended is not None:
                out += self._machine.exited(number, ended[0], now, ended[1])
        if self._nested and self._machine.idle:
            out += self._machine.stop(now, None)
        return out + self._machine.tick(now)

    def _carry_out(self, item: Command | Event) -> Outputs:
        match item:
            case Launch(number):
                try:
                    pid = self._members[number].launch()
                except Exception as error:  # noqa: BLE001 - what does not pickle, no room for a process: all are told
                    return self._machine.launch_failed(number, told(error), time.monotonic())
                return self._machine.launched(number, pid, time.monotonic())
            case Terminate(number, grace):
                self._members[number].terminate(grace)
            case Kill(number):
                self._members[number].kill()
            case _:
                self._tell(item)
        return []

    def _tell(self, event: Event) -> None:
        self._publish()  # whoever is told sees the children as they are now
        bad = isinstance(event, GaveUp) or (isinstance(event, Exited) and event.why not in ("finished", "stopped"))
        level = logging.ERROR if isinstance(event, GaveUp) else logging.WARNING if bad else logging.INFO
        log.log(level, "%s", in_words(event), extra={"event": event})
        for callback in self._callbacks:
            try:
                callback(event)
            except Exception:  # P2
                log.exception("a callback of %r failed", self)
