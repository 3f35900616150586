"""A Process under spawn and forkserver: the child's entry."""

from __future__ import annotations

import os

from procflow.start import child, owned, passing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENTRY = "procflow.start.process_entry:run"


def run(payload: bytes | memoryview, fds: list[int]) -> int:
    """Unpickle the Process object and run it, as multiprocessing's own children do."""
    result_fd = owned.own(fds[-1])  # the last one; see popen.py
    os.set_inheritable(result_fd, False)
    try:
        process: Any = passing.loads_in_child(payload, fds)
    except BaseException as error:
        from procflow.worker.result import keep_failure

        keep_failure(_file_of(result_fd), error)  # which adds a note to what comes of a name that is missing here
        raise
    return bootstrap(process, child.parent_sentinel, result_fd)


def bootstrap(process: Any, parent_sentinel: int, result_fd: int) -> int:
    """Run the Process object, here in its child; what it returns goes to `result_fd`."""
    process._result_file = _file_of(result_fd)
    code: int = process._bootstrap(parent_sentinel=parent_sentinel)
    return code


def _file_of(result_fd: int) -> tuple[int, int, int]:
    """What worker/result.py knows the file by."""
    return result_fd, os.fstat(result_fd).st_ino, os.getpid()
