"""The messages between a pool and its workers: their bytes, and nothing else.

To a worker goes a *packet*, at most PACKET_MAX bytes, so that a packet pipe carries it whole or not at all:

    TASK header | function | payload                 payload of CALLS: (CALL header, pickle of (fn, args, kwargs)) *
    TASK header with IN_BLOCKS | places              payload of MAP, STAR: one pickle of the items
                                                     IN_BLOCKS: function and payload are the stream of a
                                                     parcel in shared memory, buffers beside it; pieces.py

The function travels with each packet of a job until that worker has answered one of them; so a packet that was taken
back is complete, and nothing depends on the order of packets.

From a worker comes a stream of frames, `FRAME header (nbytes, kind) | body`:

    BOOTED            nothing: the process runs, and comes to the initializer (not sent if there is none)
    READY             nothing: the initializer has returned
    INIT_FAILED       the traceback as text
    RECORD            a pickled dictionary: the attributes of a log record
    TRACKER           nothing: multiprocessing's resource tracker is to be started
    ANSWER            ANSWER header, then segments, which cover the packet's items in their order
    segment           SEGMENT header (kind, items, nbytes) | bytes

    VALUES    a pickled list, one value for each item
    VALUE     one pickled value
    FAILURE   a pickled tuple, see `pack_failure`: `items` are done with; one failed, its chunk's others do not run
    SPLIT     no item: the packet's items did not unpickle together and none has begun; send them one by one

To FAILURE may be added: AGAIN, the items may begin once more, if the pool says so.
To VALUES, VALUE and FAILURE may be added: PLACES, the bytes are the places of a parcel with the pickle; or PIECES, they
are a pickle with buffers, see pieces.py, for which no block was free.
"""

from __future__ import annotations

from struct import Struct

__all__ = [
    "AGAIN",
    "ANSWER",
    "ANSWER_HEADER",
    "BOOTED",
    "CALLS",
    "CALL_HEADER",
    "FAILURE",
    "FRAME",
    "FRAME_KINDS",
    "INIT_FAILED",
    "IN_BLOCKS",
    "ISOLATE",
    "MAP",
    "PACKET_MAX",
    "PIECES",
    "PLACES",
    "READY",
    "RECORD",
    "REFUSED",
    "SEGMENT",
    "SPLIT",
    "STAR",
    "TASK",
    "TIMED",
    "TRACKER",
    "VALUE",
    "VALUES",
]

PACKET_MAX = 4096  # bytes: what a packet pipe keeps together, and PIPE_BUF on Linux; pipe(7)

# seq, job, oldest job still alive, index of the first item, items, items in a chunk (0: one), kind, flags, function's
# nbytes, attempt
TASK = Struct("<QIIQIIBBII")
CALL_HEADER = Struct("<QI")  # bytes in the stream, buffers beside it

CALLS, MAP, STAR = 0, 1, 2  # kind: separate calls; fn(item); fn(*item)
IN_BLOCKS = 1  # flag: function and payload are in blocks
ISOLATE = 2  # flag: a result that does not unpickle must not spoil its neighbours
TIMED = 4  # flag: the pool wants to know since when an item runs

FRAME = Struct("<QB")  # nbytes of the body, kind
READY, INIT_FAILED, ANSWER, BOOTED, RECORD, TRACKER = FRAME_KINDS = 1, 2, 3, 4, 6, 7
REFUSED = 5  # in place of an answer: a process elsewhere can't run the packet; why, as text
ANSWER_HEADER = Struct("<QQdB")  # seq, index of the first item, seconds, final
SEGMENT = Struct("<BIQ")  # kind, items, nbytes
VALUES, VALUE, FAILURE, SPLIT = 0, 1, 2, 3
AGAIN = 0x20
PLACES, PIECES = 0x40, 0x80
