"""A Process under spawn and forkserver: the child's entry."""

from __future__ import annotations

from procflow.start import child, main_module, passing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENTRY = "procflow.start.process_entry:run"


def run(payload: bytes | memoryview, fds: list[int]) -> int:
    """Unpickle the Process object and run it, as multiprocessing's own children do."""
    try:
        process: Any = passing.loads_in_child(payload, fds)
    except BaseException as error:
        main_module.explain(error)
        raise
    code: int = process._bootstrap(parent_sentinel=child.parent_sentinel)
    return code
