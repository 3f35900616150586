"""Waiting for a pool in an asyncio loop: the loop does the pool's input and output itself, no thread is in between.

    pump    the loop calls `Lead.pump` when the engine's descriptor is readable; that takes the lead for one turn
            without waiting. Registered when a coroutine waits, and for LINGER seconds longer: most wait again at once.

A1  A loop that does not come to pumping for a tick, as a coroutine computes, holds nothing up: the background thread
    leads then, and tells the loop what has come (L3).
A2  The loop watches a descriptor of its own, which only the loop closes, after it has forgotten it: a loop knows the
    numbers that it watches, and the pool may end in any thread.
A3  Where there is no such descriptor, or the loop can't watch one, the background thread leads, and tells the loop.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from procflow.dispatch.lead import Lead, Target

__all__ = ["Pumps"]

LINGER = 0.05  # seconds


class _Sleeper:
    """What a coroutine waits by, among the `waiters` of its target."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.woken: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._thread = threading.get_ident()

    def wake(self) -> None:
        """Wake it, from any thread; harmless if it is awake."""
        if threading.get_ident() == self._thread:
            self.finish()
        else:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self.finish)

    def finish(self) -> None:
        """It need not wait any longer. In the loop's thread."""
        if not self.woken.done():  # else it was woken before, or cancelled
            self.woken.set_result(None)


class _Pump:
    """The lead, as one loop serves it. Used in that loop's thread only."""

    def __init__(self, lead: Lead, loop: asyncio.AbstractEventLoop, fd: int) -> None:
        self._loop = loop
        self._watched = select.epoll.fromfd(os.dup(fd))  # closed when this object goes
        loop.add_reader(self._watched.fileno(), lead.pump)
        self.sleepers = 0
        self._leaving = False  # a look is due whether anybody still waits
        self._used = False  # since the last look

    def begin(self) -> None:
        """A coroutine is about to wait."""
        self.sleepers += 1
        self._used = True

    def end(self) -> None:
        """It waits no more."""
        self.sleepers -= 1
        if not self.sleepers and not self._leaving:
            self._look_later()

    def _look_later(self) -> None:
        self._leaving, self._used = True, False
        self._loop.call_later(LINGER, self._look)

    def _look(self) -> None:
        self._leaving = False
        if self.sleepers:
            return
        if self._used:
            self._look_later()
        else:
            self.leave()

    @property
    def closed(self) -> bool:
        """Whether it has left."""
        return self._watched.closed

    def leave(self) -> None:
        """Forget the descriptor, and close it."""
        if not self._watched.closed:
            self._loop.remove_reader(self._watched.fileno())
            self._watched.close()

    def leave_soon(self) -> None:
        """The same from any thread."""
        with suppress(RuntimeError):  # the loop is closed, and has forgotten it
            self._loop.call_soon_threadsafe(self.leave)


class Pumps:
    """The loops that serve one lead: one, as a rule."""

    def __init__(self, lead: Lead, fd: int | None) -> None:
        """`fd` is readable when a turn of the core would find something; None if there is no such descriptor."""
        self._lead, self._fd = lead, fd
        self._pumps: dict[asyncio.AbstractEventLoop, _Pump] = {}

    async def wait(self, target: Target, timeout: float | None = None) -> None:
        """Return when the target is done, or, at the latest, after `timeout` seconds."""
        loop = asyncio.get_running_loop()
        pump = self._pump(loop)
        sleeper = _Sleeper(loop)
        if pump is not None:
            pump.begin()
        timer = None if timeout is None else loop.call_later(timeout, sleeper.finish)
        self._lead.attend(target, sleeper, pumped=pump is not None)
        try:
            if not target.is_done:
                await sleeper.woken
        finally:
            self._lead.leave(target, sleeper)
            if timer is not None:
                timer.cancel()
            if pump is not None:
                pump.end()

    def _pump(self, loop: asyncio.AbstractEventLoop) -> _Pump | None:
        pump = self._pumps.get(loop)
        if pump is not None and not pump.closed:
            return pump
        for other in [other for other in self._pumps if other.is_closed()]:
            del self._pumps[other]
        if self._fd is None or self._lead.finished:
            return None
        try:
            pump = self._pumps[loop] = _Pump(self._lead, loop, self._fd)
        except (NotImplementedError, OSError):  # Windows' proactor; too many descriptors
            return None
        return pump

    def end(self) -> None:
        """The lead has nothing to do any more. In any thread."""
        for pump in list(self._pumps.values()):
            pump.leave_soon()
        self._pumps.clear()
