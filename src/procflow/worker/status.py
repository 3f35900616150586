"""The status page: shared memory in which a worker says what it is doing and keeps what it has not sent yet.

    word 0   seq of the packet that it began last
    word 1   the items that it runs, or ran last: index of the first << WIDTH_BITS | how many; 0 of them while all that
             the packet has are unpickled; NOTHING when the packet has only just begun
    word 2   bytes of the log that are valid
    word 3   index of the log's first item
    word 4   written by the pool: item before which the worker is to stop, in the packet that
    word 5   names, by its seq; also written by the pool
    word 6   seq of a packet of which the worker is to begin nothing; also written by the pool
    word 7   since when it runs an item whose time is limited: time.monotonic(), which all processes share, in ns
    word 8   written by the pool before the worker starts: bytes of memory that it may keep between packets; 0: no limit
    LOG_START...   the log: segments, as in an answer, of items that are done but not written to the pipe
    PAGE_SIZE...   not mapped: the worker's Python stacks, as text, written when the pool sends STACK_SIGNAL

The pool reads it once the worker is dead. So a death is blamed on what the worker ran, results that it had are not lost
with it, and what it had not begun runs elsewhere. Each write leaves the page valid:

    a packet begins    words 1 to 3, then word 0
    an item is done    its segment, then word 2
    the log is sent    the pipe, then word 2 = 0, then word 3; the pool drops what of a log has come by pipe

The pool also looks at the log of a worker that makes no progress, and cuts its packet short:

    the pool     writes words 4 and 5, waits CUT_PAUSE, reads word 1. If the worker is still before the item named, it
                 will not begin that: the pool gives it, and what is behind it, to others. Else nothing was.
                 In one packet word 4 only ever falls: what was given to others stays theirs.
    the worker   writes word 1, then reads words 5 and 4, and hands back what it may not begin

A packet in a plain pipe, which can't be taken back, is withdrawn in the same way: word 6, the pause, word 0.

Each writes before it reads, and the pause is a thousand times longer than a processor keeps a write to itself; so
either the worker sees the word, or the pool sees that the item has begun.
"""

from __future__ import annotations

import mmap
import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = [
    "BEGUN",
    "CUT_PAUSE",
    "FIRST",
    "LOGGED",
    "LOG_SIZE",
    "LOG_START",
    "MEMORY",
    "NOTHING",
    "OWN_FRAME",
    "PAGE_SIZE",
    "REVOKED",
    "RUNS",
    "SINCE",
    "STACK_SIGNAL",
    "STOP",
    "STOP_SEQ",
    "WIDEST",
    "WIDTH_BITS",
    "open_page",
]

BEGUN: Final = 0
RUNS: Final = 1
LOGGED: Final = 2
FIRST: Final = 3
STOP: Final = 4
STOP_SEQ: Final = 5
REVOKED: Final = 6
SINCE: Final = 7
MEMORY: Final = 8
WIDTH_BITS: Final = 24
WIDEST: Final = (1 << WIDTH_BITS) - 1  # stands for itself and for all that is more: to the end of the packet
CUT_PAUSE = 1e-3  # seconds
LOG_START = 128
PAGE_SIZE = 65536
LOG_SIZE = PAGE_SIZE - LOG_START
NOTHING = 2**64 - 1
STACK_SIGNAL: int | None = getattr(signal, "SIGRTMAX", None)  # where there are none, nobody's stack is told
OWN_FRAME = f'  File "{os.path.dirname(__file__)}{os.sep}'  # begins the line of a frame that has called the task


def open_page(fd: int) -> tuple[memoryview[int], memoryview[int]]:
    """Map a worker's page; return its words, unsigned and 64 bits wide, and its log, as bytes."""
    view = memoryview(mmap.mmap(fd, PAGE_SIZE))
    return view[:LOG_START].cast("Q"), view[LOG_START:]
