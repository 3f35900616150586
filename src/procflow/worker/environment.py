"""Set environment variables in a worker before anything that reads them is imported."""

from __future__ import annotations

import os
import pickle

__all__ = ["prepare"]


def prepare(environment: dict[str, str], initializer: bytes) -> None:
    """Set the variables, then unpickle and call the initializer: unpickling may import what reads them."""
    os.environ.update(environment)
    if initializer:
        function, arguments = pickle.loads(initializer)
        function(*arguments)
