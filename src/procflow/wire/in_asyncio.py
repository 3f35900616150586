"""Waiting for a connection in an asyncio loop: no thread, and nothing is lost when the waiting is cancelled.

The descriptors are watched by copies of their own: a loop knows one reader for each, which may be the user's.
"""

from __future__ import annotations

import os

from procflow.wire.peers import survey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from procflow.wire.waiting import Waiting

__all__ = ["readable"]


async def readable(waiting: Waiting) -> None:
    """Return when there may be something to read: bytes, the end, or news of those who hold the other end."""
    import asyncio

    gone, children, pause = (False, (), None) if waiting.peer is None else survey(waiting.peer)
    if gone or waiting.ready:
        return
    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    watched: list[int] = []
    timer = None if pause is None else loop.call_later(pause, wake)
    try:
        for fd in (waiting.fd, *(child.sentinel for child in children)):
            if fd is not None:
                watched.append(os.dup(fd))
                loop.add_reader(watched[-1], wake)
        await woken
    finally:
        for fd in watched:
            loop.remove_reader(fd)
            os.close(fd)
        if timer is not None:
            timer.cancel()
