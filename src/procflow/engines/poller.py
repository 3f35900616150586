"""Waiting for many file descriptors: epoll where there is one, else what the `selectors` module finds.

P1  `register` may be called by any thread, also while another one waits. `unregister` only by the thread that polls.
P2  `wake` ends the current or the next `poll` early, from any thread and from a signal handler.
"""

from __future__ import annotations

import os
import select
import selectors
import threading

from procflow.start import owned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Poller(Protocol):
        """See the module."""

        woken: bool  # a `wake` ended a `poll`; set by that, cleared by the thread that polls

        def register(self, fd: int) -> None:
            """Report `fd` when it is readable, or at its end."""

        def unregister(self, fd: int) -> None:
            """Report it no more."""

        def poll(self, timeout: float | None) -> list[int]:
            """Wait at most `timeout` seconds (None: for ever); return the descriptors that are ready."""
            ...

        def wake(self) -> None:
            """End the current or the next `poll`."""

        def fileno(self) -> int | None:
            """A descriptor that is readable when `poll` would return at once; None if there is none."""
            ...

        def close(self) -> None:
            """Release it; nobody polls."""


__all__ = ["EpollPoller", "SelectPoller", "open_poller"]

_EVENTS = 64  # reported at once


class _Waker:
    """A pipe to oneself."""

    def __init__(self) -> None:
        self.reader, self._writer = owned.pipe()
        for fd in (self.reader, self._writer):
            os.set_blocking(fd, False)

    def wake(self) -> None:
        try:
            os.write(self._writer, b"\0")
        except OSError:  # full: it is awake; or closed: nobody is there to be woken
            pass

    def drain(self) -> None:
        try:
            os.read(self.reader, 4096)
        except BlockingIOError:
            pass

    def close(self) -> None:
        reader, writer = self.reader, self._writer
        self.reader = self._writer = -1  # before they are closed: a finalizer may call `wake` at any moment
        for fd in (reader, writer):
            owned.disown(fd)
            os.close(fd)


class EpollPoller:
    """Linux."""

    def __init__(self) -> None:
        # Not owned: a fork's copy of the object closes the fork's copy of the descriptor when it is dropped, and to be
        # registered here does not keep a pipe open.
        self._epoll = select.epoll()
        try:
            self._waker = _Waker()
        except BaseException:
            self._epoll.close()
            raise
        self.register(self._waker.reader)
        self.wake = self._waker.wake
        self.woken = False
        self._wait = self._epoll.poll

    def register(self, fd: int) -> None:
        self._epoll.register(fd, select.EPOLLIN)

    def unregister(self, fd: int) -> None:
        self._epoll.unregister(fd)

    def poll(self, timeout: float | None) -> list[int]:
        ready = [fd for fd, _ in self._wait(timeout, _EVENTS)]
        if self._waker.reader in ready:
            self._waker.drain()
            ready.remove(self._waker.reader)
            self.woken = True
        return ready

    def fileno(self) -> int | None:
        return self._epoll.fileno()

    def close(self) -> None:
        self._epoll.close()
        self._waker.close()


class SelectPoller:
    """Everywhere else: registrations are made by the thread that polls, which is woken for them."""

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        self._selector = selector or selectors.DefaultSelector()
        self._waker = _Waker()
        self._selector.register(self._waker.reader, selectors.EVENT_READ)
        self._new: list[int] = []
        self._lock = threading.Lock()
        self.wake = self._waker.wake
        self.woken = False

    def register(self, fd: int) -> None:
        with self._lock:
            self._new.append(fd)
        self.wake()

    def unregister(self, fd: int) -> None:
        with self._lock:
            if fd in self._new:
                self._new.remove(fd)
                return
        self._selector.unregister(fd)

    def poll(self, timeout: float | None) -> list[int]:
        while self._new:
            fd = self._new[0]
            if fd not in self._selector.get_map():  # else Ctrl-C came after it was registered
                self._selector.register(fd, selectors.EVENT_READ)
            del self._new[0]
        ready = [key.fd for key, _ in self._selector.select(timeout)]
        if self._waker.reader in ready:
            self._waker.drain()
            ready.remove(self._waker.reader)
            self.woken = True
        return ready

    def fileno(self) -> int | None:
        return None

    def close(self) -> None:
        self._selector.close()
        self._waker.close()


def open_poller(*, portable: bool = False) -> Poller:
    """Open the best poller that this system has; `portable` asks for select()."""
    if portable:
        return SelectPoller(getattr(selectors, "PollSelector", selectors.SelectSelector)())
    if hasattr(select, "epoll"):
        return EpollPoller()
    return SelectPoller()
