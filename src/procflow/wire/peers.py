"""Peers: who may still hold the other end of a pipe, when our own copy of it hides the kernel's end-of-file.

A process makes a pipe, gives one end to a child and forgets to close its copy of that end. Then:
    1. the child dies;  2. its end stays open here;  3. recv() here sees no end-of-file and waits for ever.
So the process that made the pipe keeps an `End` for each of its two ends, with the children that it gave the end to.

    what is known of the other end                                               state     recv() and send() here
    this process has used its own copy, or can't know who holds the end          KERNEL    wait for the kernel alone
    closed here, and never given to a child                                      KERNEL
    open here, unused, not yet given to a child                                  UNGIVEN   and look again every RECHECK
    given to children, of which one at least is running                          WATCH     and wait for their sentinels
    given to children, all of them ended                                         SEARCH    and look who holds it (/proc)
    given to children, all of them ended, and no other process holds it          GONE      end-of-file, broken pipe

P1  A child's sentinel alone is never the end: a grandchild, or a process that got it over a connection, may hold it.
    GONE needs two searches of /proc that find no holder. Where there is no /proc, the state stays KERNEL.
P2  A holder is any descriptor of the end in any process that we may look into, except the copy that this process knows
    of, and the copy that a forked sibling inherited without being given it: it has the same descriptor number.
P3  What is in the pipe comes first: after GONE, the descriptor is asked once more, and only an empty pipe has ended.
P4  GONE is not for ever: an end that is given to another child, or used here, is alive again.
P5  A record is of the process that made the pipe. A forked child forgets it, and waits for the kernel alone.
"""

from __future__ import annotations

import enum
import math
import os
import select
import sys
import threading
import time
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    class Launched(Protocol):
        """What the launcher's popen object shows once the child runs. It can be weakly referenced.

        While the child is being launched it may have no `sentinel` yet. A `returncode` other than None says that the
        child has ended; an object without it is judged by its sentinel.
        """

        @property
        def pid(self) -> int: ...
        @property
        def sentinel(self) -> int: ...


__all__ = [
    "READ",
    "WRITE",
    "Child",
    "End",
    "Ready",
    "State",
    "decide",
    "forget_parents_children",
    "milliseconds",
    "remember_launched",
    "shorter",
    "survey",
    "wait_ready",
]

# How often a waiting thread looks whether the end has been given to a child meanwhile: no descriptor tells.
RECHECK = 0.05
# A search costs about 1 ms per 30 processes; while a grandchild holds the end, it is repeated ever more slowly.
SEARCH_FIRST = 0.005
SEARCH_LAST = 1.0

READ: int = getattr(select, "POLLIN", 1)
WRITE: int = getattr(select, "POLLOUT", 4)

_lock = threading.Lock()  # guards the children of every End; never held while waiting or looking
_launched: weakref.WeakSet[Launched] = weakref.WeakSet()  # forked children that multiprocessing does not list


class State(enum.Enum):
    """What is known of the other end; the table stands at the top of the module."""

    KERNEL = enum.auto()
    UNGIVEN = enum.auto()
    WATCH = enum.auto()
    SEARCH = enum.auto()
    GONE = enum.auto()


class Ready(enum.Enum):
    """What ended a wait."""

    READY = enum.auto()
    TIMEOUT = enum.auto()
    GONE = enum.auto()


def decide(*, visible: bool, used: bool, open_here: bool, running: int, ended: int, searched_empty: bool) -> State:
    """Return the state of an end: the table at the top of the module, and nothing else.

    Args:
        visible: Whether the holders of the end can be looked up at all.
        used: Whether this process has used its own copy.
        open_here: Whether this process still has its copy open.
        running: How many children that were given the end are running, or still starting.
        ended: How many children that were given the end have ended.
        searched_empty: Whether the searches since the last change have found no holder.
    """
    if used or not visible:
        return State.KERNEL
    if running:
        return State.WATCH
    if ended:
        return State.GONE if searched_empty else State.SEARCH
    return State.UNGIVEN if open_here else State.KERNEL


class Child:
    """A child that was given an end. Has its own descriptor of the sentinel, so no number is recycled under it."""

    __slots__ = ("_popen", "pid", "sentinel")

    def __init__(self, popen: Launched) -> None:
        self._popen = weakref.ref(popen)
        self.pid: int | None = None
        self.sentinel: int | None = None  # None until the child is launched and somebody waits for it

    def refresh(self) -> bool | None:
        """Tell whether the child runs (or starts); None if it was never launched."""
        popen = self._popen()
        if popen is None:
            # The launch failed, or it ended unobserved: without a sentinel we can't tell, and claim nothing.
            return True if self.sentinel is not None else None
        # Never popen.poll(): it reaps, and would race with a join() in another thread.
        if getattr(popen, "returncode", None) is not None:
            self.pid = popen.pid
            return False
        if self.sentinel is None:
            try:
                sentinel: int | None = getattr(popen, "sentinel", None)
            except OSError:  # the fork server could not launch it
                return None
            if sentinel is None:
                return True  # still being launched
            self.pid = popen.pid
            try:
                self.sentinel = os.dup(sentinel)
            except OSError:  # closed by Process.close(), which only an ended process allows
                return False
        return True

    def is_of(self, popen: Launched) -> bool:
        """Whether this is that child."""
        return self._popen() is popen

    def __del__(self) -> None:
        # By reference count, so that no thread that still polls the descriptor loses it.
        if self.sentinel is not None:
            os.close(self.sentinel)


class End:
    """One end of a pipe, as the process that made the pipe knows it."""

    __slots__ = ("_children", "_empty", "_ended", "_fd", "_interval", "_link", "_next", "_pids", "open", "used")

    def __init__(self) -> None:
        self.used = False  # any thread sets it, none clears it
        self.open = True
        self._children: tuple[Child, ...] = ()  # replaced under _lock; not yet known to have ended
        self._ended = 0
        self._pids: set[int] = set()  # of all children that were given the end
        self._fd = -1
        self._link: str | None = None  # what /proc calls the end; None until it is given
        self._empty = False
        self._next = 0.0
        self._interval = SEARCH_FIRST

    def give(self, popen: Launched, fd: int, *, writable: bool) -> None:
        """Note that the child gets this end, whose descriptor here is `fd`. Called before or after the launch."""
        with _lock:
            if any(child.is_of(popen) for child in self._children):
                return
            if self._link is None:
                self._fd = fd
                self._link = _describe(f"/proc/self/fd/{fd}", writable=writable)
            self._children = (*self._children, Child(popen))
            self._empty = False
            self._next, self._interval = 0.0, SEARCH_FIRST

    @property
    def settled(self) -> bool:
        """Whether only the kernel will ever tell the end, so that nobody need ask again."""
        return self.used or not (self.open or self._children or self._ended)

    def state(self) -> State:
        """Return what is known now. A child's sentinel is not read here: `wait_ready` tells by `note_ended`."""
        if self._children and not self.used:
            for child in self._children:
                running = child.refresh()
                if running is not True:
                    self.note_ended(child, launched=running is False)
        return decide(
            visible=self._link is not None or not (self._children or self._ended),
            used=self.used,
            open_here=self.open,
            running=len(self._children),
            ended=self._ended,
            searched_empty=self._empty,
        )

    def children(self) -> tuple[Child, ...]:
        """Return the children that are not known to have ended."""
        return self._children

    def abandon(self) -> None:
        """Let go of the sentinels: the connection that watched this end is closed, or needs to watch no longer."""
        with _lock:
            self._children = ()

    def note_ended(self, child: Child, *, launched: bool = True) -> None:
        """Note that a child's sentinel has fired, or that it was never launched."""
        with _lock:
            if child not in self._children:
                return
            self._children = tuple(other for other in self._children if other is not child)
            if launched:
                self._ended += 1
                if child.pid is not None:
                    self._pids.add(child.pid)

    def search(self) -> float:
        """Look for holders, unless it is too early to look again. Return the seconds until the next look."""
        now = time.monotonic()
        if now >= self._next and self._link is not None:
            ended, children = self._ended, self._children
            # Twice: a process that hands the end to a new one and exits may slip through one look at the list.
            found = self._held() or self._held()
            spent = time.monotonic() - now
            with _lock:
                if not found and ended == self._ended and children is self._children:
                    self._empty = True
                self._next = time.monotonic() + max(self._interval, 20 * spent)
                self._interval = min(2 * self._interval, SEARCH_LAST)
        return max(0.0, self._next - time.monotonic())

    def _held(self) -> bool:
        assert self._link is not None
        siblings = _forked_children() - self._pids
        own = os.getpid()
        for pid, fd in find_holders(self._link):
            if pid == own and fd == self._fd and self.open:
                continue
            if pid in siblings and fd == self._fd:
                continue  # inherited by fork, not given: P2
            return True
        return False


def find_holders(link: str) -> Iterator[tuple[int, int]]:
    """Yield (pid, descriptor) of each descriptor that this process may see and that is the end `link`."""
    writable = link.startswith("w")
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        directory = f"/proc/{name}/fd"
        try:
            descriptors = os.listdir(directory)
        except OSError:  # another user's, or it has just gone
            continue
        for fd in descriptors:
            if _describe(f"{directory}/{fd}", writable=writable) == link:
                yield int(name), int(fd)


def _describe(path: str, *, writable: bool) -> str | None:
    """Say which end of a pipe or socket a descriptor in /proc is, as in `w pipe:[4711]`; None if it is another end."""
    try:
        target = os.readlink(path)
        if target.startswith("pipe:"):
            # Both ends of a pipe have one name; the link's permissions tell reading (0o400) from writing (0o200).
            if not os.lstat(path).st_mode & (0o200 if writable else 0o400):
                return None
        elif not target.startswith("socket:"):
            return None
    except OSError:
        return None
    return f"{'w' if writable else 'r'} {target}"


def remember_launched(popen: Launched) -> None:
    """Note a forked child that multiprocessing.active_children() does not list, so that P2 knows it as a sibling."""
    _launched.add(popen)


def _forked_children() -> set[int]:
    """Return the process ids of this process's children by fork, which inherited every descriptor."""
    popens: list[object] = list(_launched)
    process = sys.modules.get("multiprocessing.process")
    listed: set[object] = getattr(process, "_children", set())
    for child in listed.copy():
        popen = getattr(child, "_popen", None)
        if getattr(popen, "method", None) == "fork":
            popens.append(popen)
    return {pid for popen in popens if (pid := getattr(popen, "pid", None)) is not None}


def survey(end: End) -> tuple[bool, tuple[Child, ...], float | None]:
    """Return whether the other end is gone, else whose sentinels to wait for, and after how long to ask again."""
    state = end.state()
    if state is State.SEARCH:
        pause = end.search()
        state = end.state()
        if state is State.SEARCH:
            return False, (), pause
    if state is State.GONE:
        return True, (), 0.0
    children = end.children() if state is State.WATCH else ()
    again = state is State.UNGIVEN or any(child.sentinel is None for child in children)
    return False, children, RECHECK if again else None


def wait_ready(fd: int, events: int, deadline: float | None, end: End | None) -> Ready:
    """Wait until the descriptor can be read or written, the other end is gone, or the deadline has passed."""
    while True:
        gone, children, pause = (False, (), None) if end is None else survey(end)
        if gone:
            unread = events == READ and _poll(fd, READ, (), 0.0)[0]  # P3
            return Ready.READY if unread else Ready.GONE
        remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready, fired = _poll(fd, events, children, shorter(pause, remaining))
        for child in fired:
            if end is not None:
                end.note_ended(child)
        if ready and not (fired and events == WRITE):
            # A message may wait to be read after the death of its sender, but none may be sent to the dead.
            return Ready.READY
        if not fired and deadline is not None and time.monotonic() >= deadline:
            return Ready.TIMEOUT


def shorter(one: float | None, other: float | None) -> float | None:
    """Return the shorter of two waits, of which None never ends."""
    if one is None or other is None:
        return one if other is None else other
    return min(one, other)


def milliseconds(seconds: float | None) -> int | None:
    """Return a wait as poll(2) takes it, rounded up so that it never ends early."""
    return None if seconds is None else max(0, math.ceil(seconds * 1000))


def _poll(fd: int, events: int, children: tuple[Child, ...], nap: float | None) -> tuple[bool, list[Child]]:
    poller = select.poll()
    poller.register(fd, events)
    for child in children:
        if child.sentinel is not None:
            poller.register(child.sentinel, READ)
    seen = {number for number, _ in poller.poll(milliseconds(nap))}
    return fd in seen, [child for child in children if child.sentinel in seen]


def forget_parents_children() -> None:
    """In a forked child: its siblings are none of its children, and another thread may have held the lock."""
    global _lock
    _lock = threading.Lock()
    _launched.clear()
