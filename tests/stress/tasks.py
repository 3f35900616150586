"""The tasks of a storm. A worker that ran one has left its pid, so that the storm knows whom it may kill."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_told = False


def _folder(storm: int) -> Path:
    return Path(tempfile.gettempdir(), f"procflow-storm-{storm}")


def double(storm: int, n: int) -> int:
    global _told
    if not _told:
        _folder(storm).mkdir(exist_ok=True)
        (_folder(storm) / str(os.getpid())).touch()
        _told = True
    return 2 * n


def known(storm: int) -> set[int]:
    """The processes that are workers, or were."""
    try:
        return {int(name) for name in os.listdir(_folder(storm))}
    except FileNotFoundError:
        return set()
