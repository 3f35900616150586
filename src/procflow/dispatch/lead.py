"""The lead: which thread polls the engine, and how the others wait.

    leader     the one thread that polls: whoever waits for a result, else the background thread
    follower   another thread that waits; woken when its own target is done, or when it is to lead
    pump       what an asyncio loop calls that has coroutines waiting: it leads for one turn, without sleeping

L1  At most one thread leads. A leader that has what it waited for promotes the follower that waits longest.
L2  The lead is given up before callbacks run, so a callback may wait for other results.
L3  While something is to come, somebody leads: within a tick of the background thread if nobody waits.
L4  Nobody sleeps longer than `LOOK` at once: a signal that came just before the sleep does not end it, and a thread
    that was interrupted while it handed over may not have woken its successor.
"""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic

from procflow.dispatch.background import Background
from procflow.start.interpreter import take_signals_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from procflow.dispatch.callbacks import Callbacks
    from procflow.dispatch.guard import Guard

    class Waking(Protocol):
        """Who waits for a target."""

        def wake(self) -> None: ...

    class Target(Protocol):
        """What a thread can wait for. Whoever sets `is_done` calls `resolved` after it."""

        waiters: list[Waking] | None

        @property
        def is_done(self) -> bool: ...

        def digest(self) -> None: ...

    class Core(Protocol):
        """What is led."""

        inline: bool

        def turn(self, timeout: float | None) -> bool: ...

        def wake(self) -> None: ...

        def kick(self) -> None: ...

        def release(self) -> None: ...

        def terminate(self) -> None: ...

        @property
        def busy(self) -> bool: ...

        @property
        def delayed(self) -> bool: ...

        @property
        def all_gone(self) -> bool: ...


__all__ = ["Lead", "Waiter", "remaining"]

LOOK = 1.0  # seconds


def remaining(deadline: float | None) -> float | None:
    """Return the seconds left until `deadline`, at least 0."""
    return None if deadline is None else max(0.0, deadline - monotonic())


class Waiter:
    """A follower: a lock that is released to wake it."""

    __slots__ = ("lock", "promoted")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()
        self.promoted = False

    def wake(self) -> None:
        """Wake it; harmless if it is awake."""
        try:
            self.lock.release()
        except RuntimeError:  # woken already
            pass


class Lead:
    """See the module. `guard` is the pool's lock; it guards what is assigned here as well."""

    def __init__(self, core: Core, guard: Guard, callbacks: Callbacks) -> None:
        self._core, self._guard, self._callbacks = core, guard, callbacks
        self._leader: int | None = None  # its thread's ident
        self._target: Target | None = None  # what the leader waits for
        self._followers: dict[Waiter, None] = {}  # oldest first
        self._background = Background(self)
        self.dropped: deque[Callable[[], None]] = deque()  # what finalizers ask for; the background thread does it
        self.finished = False  # the core is released: nobody will lead again
        self.taken = 0  # how often a thread that waits took the lead

    @property
    def busy(self) -> bool:
        """Whether something is to come."""
        return not self.finished and self._core.busy

    def wait(self, target: Target, timeout: float | None = None) -> bool:
        """Wait until the target is done, leading if nobody does; False after `timeout` seconds."""
        if target.is_done:
            return True
        deadline = None if timeout is None else monotonic() + timeout
        me = threading.get_ident()
        outer = self._leader == me  # this is user code that was called while leading: it pickles
        try:
            return self._wait(target, deadline, me)
        except BaseException:  # Ctrl-C, anywhere: between taking the lead and using it, or amid handing it over
            if not outer:
                self.later(_nothing)  # the background thread looks around: it leads, or promotes who follows
                if self._leader == me:
                    self._hand_over()
            raise

    @property
    def leads_here(self) -> bool:
        """Whether the calling thread leads: it has interrupted itself, or pickles."""
        return self._leader == threading.get_ident()

    def _wait(self, target: Target, deadline: float | None, me: int) -> bool:
        while True:
            waiter: Waiter | None = None
            with self._guard:
                if target.is_done:
                    return True
                nested = self._leader == me
                if self._leader is None:
                    self._leader = me
                    self.taken += 1
                elif not nested:
                    waiter = self._follow(target)
            if waiter is not None:
                self._await_turn(waiter, target, remaining(deadline))
            else:
                self._lead(target, deadline)
                if nested:
                    self._core.kick()  # what the outer wait sleeps for may have come; a sleep goes on after a handler
                else:
                    self._hand_over()
            if self._callbacks:
                self._callbacks.run()
            target.digest()
            if deadline is not None and monotonic() >= deadline and not target.is_done:
                return False

    def resolved(self, target: Target) -> None:
        """The target is done: wake who waits for it, the leader too if another thread than the leader has done it."""
        if target.waiters:
            for waiter in list(target.waiters):
                waiter.wake()
        if self._target is target and self._leader != threading.get_ident():
            with self._guard:
                self._core.wake()

    def _follow(self, target: Target) -> Waiter:
        """Become a follower. Under the guard."""
        waiter = Waiter()
        self._followers[waiter] = None
        self._add_waiter(target, waiter)
        return waiter

    def _add_waiter(self, target: Target, waiter: Waking) -> None:
        """Have it woken when the target is done, and the background thread leave the lead to it. Under the guard."""
        if target.waiters is None:
            target.waiters = []
        target.waiters.append(waiter)
        if self._leader == self._background.ident:
            self._core.wake()

    def _await_turn(self, waiter: Waiter, target: Target, timeout: float | None) -> None:
        try:
            waiter.lock.acquire(timeout=LOOK if timeout is None else min(timeout, LOOK))
        finally:
            with self._guard:
                self._followers.pop(waiter, None)
                _remove_waiter(target, waiter)
                if waiter.promoted and self._leader is None:
                    self._promote()  # should this one not lead after all; if it does, that one follows again

    def _lead(self, target: Target, deadline: float | None) -> None:
        """Poll until the target is done, the deadline has passed, callbacks are due, or nobody is left to be polled."""
        core = self._core
        outer, self._target = self._target, target  # before `is_done` is looked at: see `resolved`
        try:
            while not target.is_done and not self._callbacks and not core.all_gone:
                left = remaining(deadline)
                core.turn(LOOK if left is None else min(left, LOOK))
                if target.is_done:
                    return
                target.digest()
                if deadline is not None and monotonic() >= deadline:
                    return
        finally:
            self._target = outer

    def _hand_over(self) -> None:
        """Give the lead up. The last one to do so, when all workers are gone, releases the core."""
        with self._guard:
            self._leader = None
            last = self._core.all_gone and not self.finished
            if last:
                self.finished = True
            self._promote()
        if last:
            self._core.release()
            self._background.end()
        elif self._guard.torn:
            self._core.terminate()
        else:
            self.watch()

    def _promote(self) -> None:
        """Wake the follower that waits longest: it will find that nobody leads. Under the guard."""
        for waiter in self._followers:
            if not waiter.promoted:
                waiter.promoted = True
                waiter.wake()
                return

    # -- when a loop waits --------------------------------------------------------------------------------------------

    def attend(self, target: Target, waiter: Waking, *, pumped: bool) -> None:
        """Have this woken when the target is done. `pumped`: its loop leads by `pump`; else the background thread."""
        with self._guard:
            self.taken += pumped
            self._add_waiter(target, waiter)
        if not pumped:
            self.hurry()

    def leave(self, target: Target, waiter: Waking) -> None:
        """It waits no more."""
        with self._guard:
            _remove_waiter(target, waiter)

    def pump(self) -> None:
        """Lead for one turn, if nobody else does, without waiting."""
        me = threading.get_ident()
        with self._guard:
            if self._leader is not None or self.finished or self._guard.torn:
                return
            self._leader = me
            self.taken += 1
        try:
            if not self._core.all_gone:
                self._core.turn(0.0)
        except BaseException:  # Ctrl-C
            self.later(_nothing)
            raise
        finally:
            self._hand_over()
        if self._callbacks:
            self._callbacks.run()

    # -- when nobody waits --------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Work was accepted, or the lead is free: see to L3."""
        if self._core.inline:
            self._run_inline()
        elif self._background.parked and self.busy:
            self._background.unpark()

    def _run_inline(self) -> None:
        """An engine that runs tasks in the caller's thread: run what waits, now, unless another thread is at it."""
        me = threading.get_ident()
        with self._guard:
            nested = self._leader == me  # a task uses its own pool
            if not self.busy or self._leader not in (None, me):
                return
            self._leader = me
        try:
            while self._core.busy and (self._core.turn(None) or self._core.delayed):
                pass
        finally:
            if not nested:
                self._hand_over()
        self._callbacks.run()

    def try_lead(self, ident: int, taken: int) -> bool:
        """The background thread asks for the lead: it gets it if nobody led since `taken` and something is to come."""
        with self._guard:
            if self._leader is not None or self.taken != taken or not self.busy:
                return False
            self._leader = ident
            return True

    def lead_in_background(self) -> None:
        """Poll until a thread comes that waits, callbacks are due, or nothing is to come."""
        core, taken = self._core, self.taken
        try:
            while (
                core.busy
                and self.taken == taken
                and not (self._followers or self._callbacks or self.dropped or core.all_gone)
            ):
                core.turn(None)
        finally:
            self._hand_over()
        if self._callbacks:
            take_signals_for(self._callbacks.run)

    def hurry(self) -> None:
        """Somebody wants to be called rather than to wait: the background thread looks now, not at its next tick."""
        self._background.kick()

    def later(self, act: Callable[[], None]) -> None:
        """Have the background thread do this soon. Takes no lock: the garbage collector runs finalizers in any thread,
        at any moment, also in one that holds the guard.
        """
        self.dropped.append(act)
        self._background.kick()
        self._core.kick()

    def run_dropped(self) -> None:
        """Do what finalizers have asked for."""
        while self.dropped:
            self.dropped.popleft()()

    def give_up(self) -> None:
        """The background thread has failed: nothing can be trusted any more."""
        with self._guard:
            self._guard.torn = True
            if self._leader == threading.get_ident():
                self._leader = None
        self._core.terminate()

    def start(self) -> None:
        """Make the background thread."""
        self._background.start()

    def stop(self) -> None:
        """End the background thread."""
        self._background.stop()


def _remove_waiter(target: Target, waiter: Waking) -> None:
    if target.waiters is not None and waiter in target.waiters:
        target.waiters.remove(waiter)


def _nothing() -> None:
    """Look around."""
