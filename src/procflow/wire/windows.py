"""Windows: the same messages over a named pipe, by multiprocessing's own PipeConnection. Never yet run there."""

from __future__ import annotations

import time

from procflow.errors import TimeoutError
from procflow.wire.stream import MessageTooLong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from procflow.wire.peers import End

__all__ = ["WindowsStream", "duplicate", "open_handles", "wait_native"]


class WindowsStream:
    """What `Stream` is elsewhere. The system keeps messages whole, so none ever comes in part."""

    begun = False
    complete = False

    def __init__(self, handle: int, readable: bool, writable: bool) -> None:
        from multiprocessing import connection

        self.native: Any = vars(connection)["PipeConnection"](handle, readable, writable)
        self.peer: End | None = None

    def watched(self) -> End | None:
        """Return None: no handle of the other end stays open unseen."""
        return None

    def wait_readable(self, deadline: float | None) -> bool:
        """Wait until there is something to read."""
        return bool(self.native.poll(None if deadline is None else max(0.0, deadline - time.monotonic())))

    def read(self, maxlength: int | None = None, deadline: float | None = None) -> bytes:
        """Return the next message."""
        if deadline is not None and not self.wait_readable(deadline):
            raise TimeoutError("no message came within the time given")
        try:
            data: bytes = self.native.recv_bytes(maxlength)
        except OSError as error:
            if maxlength is not None and str(error) == "bad message length":
                raise MessageTooLong from None
            raise
        return data

    def read_into(self, target: memoryview) -> int | bytes:
        """Read the next message into `target` and return its size; the message itself if it doesn't fit."""
        data = self.read()
        if len(data) > target.nbytes:
            return data
        target[: len(data)] = data
        return len(data)

    def write(self, payload: bytes | memoryview) -> None:
        """Write one message."""
        self.native.send_bytes(payload)

    def close(self) -> None:
        """Close the handle."""
        self.native.close()


def open_handles(duplex: bool) -> tuple[int, int]:
    """Make a named pipe and return the handles of its ends."""
    from multiprocessing import connection

    ends: Any = connection.Pipe(duplex)
    handles: tuple[int, int] = ends[0].fileno(), ends[1].fileno()
    for end in ends:
        end._handle = None  # it is the caller's now
    return handles


def duplicate(native: Any) -> Any:
    """Return a picklable copy of a PipeConnection's handle, whose detach() gives the handle in the other process."""
    from multiprocessing import connection

    return vars(connection)["reduce_pipe_connection"](native)[1][0]


def wait_native(objects: Sequence[Any], timeout: float | None) -> list[bool]:
    """Wait by multiprocessing.connection.wait, and say of each object whether it is ready."""
    from multiprocessing import connection

    ready = {id(obj) for obj in connection.wait(objects, timeout)}
    return [id(obj) in ready for obj in objects]
