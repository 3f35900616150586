"""Whether only what every system has is to be used: plain pipes, select, temporary files.

`PROCFLOW_PORTABLE=1` asks for it, so that those ways can be tested on Linux.
"""

from __future__ import annotations

import os

__all__ = ["asked_for"]


def asked_for() -> bool:
    """Read it from the environment, anew each time."""
    return os.environ.get("PROCFLOW_PORTABLE", "") not in ("", "0")
