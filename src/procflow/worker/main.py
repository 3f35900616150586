"""The life of a worker: its initializer, then packets until the pool closes the task pipe."""

from __future__ import annotations

import os
import signal
import sys

from procflow.wire.channel import packet_reader, stream_reader
from procflow.wire.packets import INIT_FAILED, READY
from procflow.worker.answer import write_frame
from procflow.worker.run import Runner
from procflow.worker.status import open_page

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Initialize = Callable[[], object]

__all__ = ["FDS", "PLAIN", "STREAM", "run", "serve"]

FDS = 4  # task pipe, result pipe, status page, blocks; further ones belong to the initializer's arguments
PLAIN, STREAM = b"p", b"s"  # first byte of the payload: the kind of the task pipe


def run(payload: bytes | memoryview, fds: list[int]) -> int:
    """Entry of a spawned or forkserver worker: the payload is the kind of channel, then the pickled initializer."""
    data = bytes(payload)

    def initialize() -> None:
        if len(data) > 1:
            from procflow.start.passing import loads_in_child

            initializer, initargs = loads_in_child(data[1:], fds[FDS:])
            initializer(*initargs)

    return serve(fds[:FDS], initialize, stream=data[:1] == STREAM)


def serve(fds: Sequence[int], initialize: Initialize, *, stream: bool) -> int:
    """Initialize, then run packets; return the exit code."""
    tasks, results, status, blocks = fds
    # Ctrl-C goes to the whole group. The pool's process raises KeyboardInterrupt and ends us; a handler rather than
    # SIG_IGN, since what a task starts would inherit that.
    signal.signal(signal.SIGINT, _leave_to_the_parent)
    try:
        initialize()
    except BaseException as error:  # noqa: BLE001 - an initializer may raise anything, SystemExit too
        import traceback

        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        write_frame(results, INIT_FAILED, text.encode("utf-8", "backslashreplace"))
        return 1
    runner = Runner(results, *open_page(status), blocks)
    read_packet = stream_reader(tasks) if stream else packet_reader(tasks)
    try:
        write_frame(results, READY)
        while packet := read_packet():
            runner.run(packet)
            if runner.exit_code is not None:
                return runner.exit_code
    except BrokenPipeError:  # the pool is gone, or has given this worker up
        pass
    finally:
        os.close(results)
    sys.stdout.flush()
    return 0


def _leave_to_the_parent(_signum: int, _frame: object) -> None:
    pass
