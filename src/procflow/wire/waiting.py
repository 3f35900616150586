"""Waiting: one poll over many objects, of which some know more than their descriptor tells."""

from __future__ import annotations

import select
import time

from procflow.wire.peers import READ, Child, End, milliseconds, shorter, survey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["Waiting", "descriptor", "wait_any"]


class Waiting:
    """What is waited for: a descriptor, and the other end of its pipe if its state is known here."""

    __slots__ = ("fd", "peer", "ready")

    def __init__(self, fd: int, peer: End | None = None, *, ready: bool = False) -> None:
        self.fd = fd
        self.peer = peer
        self.ready = ready  # whatever the descriptor says


def descriptor(obj: object) -> int:
    """Return the descriptor of an int, or of an object that has fileno(); ValueError as `selectors` raises it."""
    if isinstance(obj, int):
        fd = obj
    else:
        try:
            fd = int(obj.fileno())  # type: ignore[attr-defined]  # pyright: ignore
        except (AttributeError, TypeError, ValueError):
            raise ValueError(f"Invalid file object: {obj!r}") from None
    if fd < 0:
        raise ValueError(f"Invalid file descriptor: {fd}")
    return fd


def wait_any(waitings: Sequence[tuple[T, Waiting]], timeout: float | None) -> list[T]:
    """Return the objects that are ready, in the order given; none if the time is over before one is."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        poller = select.poll()
        sentinels: list[tuple[End, Child]] = []
        nap: float | None = None
        over: set[int] = set()
        for place, (_, waiting) in enumerate(waitings):
            poller.register(waiting.fd, READ)
            gone, children, pause = (False, (), None) if waiting.peer is None else survey(waiting.peer)
            if gone or waiting.ready:
                over.add(place)
                pause = 0.0
            for child in children:
                if child.sentinel is not None and waiting.peer is not None:
                    poller.register(child.sentinel, READ)
                    sentinels.append((waiting.peer, child))
            nap = shorter(nap, pause)
        remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
        seen = {fd for fd, _ in poller.poll(milliseconds(shorter(nap, remaining)))}
        ready = [obj for place, (obj, waiting) in enumerate(waitings) if place in over or waiting.fd in seen]
        if ready:
            return ready
        fired = [(end, child) for end, child in sentinels if child.sentinel in seen]
        for end, child in fired:
            end.note_ended(child)
        if not fired and deadline is not None and time.monotonic() >= deadline:
            return []
