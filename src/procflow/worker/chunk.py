"""What a worker runs for several calls of one function that were submitted as one; its own module, as that is light."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    R = TypeVar("R")

__all__ = ["run_chunk"]


def run_chunk(function: Callable[..., R], chunk: list[tuple[Any, ...]]) -> list[R]:
    """Return the results of all the calls; the first that fails is the failure of all."""
    return [function(*arguments) for arguments in chunk]
