"""The status page: shared memory in which a worker says what it is doing and keeps what it has not sent yet.

    word 0   seq of the packet that it began last
    word 1   index of the item that it runs, NOTHING between items
    word 2   how many items from there on may have begun
    word 3   bytes of the log that are valid
    word 4   index of the log's first item
    LOG_START...   the log: segments, as in an answer, of items that are done but not written to the pipe

The pool reads it once the worker is dead. So a death is blamed on what the worker ran, results that it had are not lost
with it, and what it had not begun runs elsewhere. Each write leaves the page valid:

    a packet begins    words 1 to 4, then word 0
    an item is done    its segment, then word 3
    the log is sent    the pipe, then word 3 = 0, then word 4; the pool drops a log that begins before what came by pipe
"""

from __future__ import annotations

import mmap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["BEGUN", "FIRST", "ITEM", "LOGGED", "LOG_SIZE", "LOG_START", "NOTHING", "PAGE_SIZE", "WIDTH", "open_page"]

BEGUN: Final = 0
ITEM: Final = 1
WIDTH: Final = 2
LOGGED: Final = 3
FIRST: Final = 4
LOG_START = 64
PAGE_SIZE = 65536
LOG_SIZE = PAGE_SIZE - LOG_START
NOTHING = 2**64 - 1


def open_page(fd: int) -> tuple[memoryview[int], memoryview[int]]:
    """Map a worker's page; return its words, unsigned and 64 bits wide, and its log, as bytes."""
    view = memoryview(mmap.mmap(fd, PAGE_SIZE))
    return view[:LOG_START].cast("Q"), view[LOG_START:]
