"""Words for objects of the user, whose own __repr__ and __str__ may raise anything."""

from __future__ import annotations

__all__ = ["shown", "told"]


def shown(obj: object) -> str:
    """Return repr(obj), or its type where that fails."""
    try:
        return repr(obj)
    except BaseException:  # noqa: BLE001 - user code
        return f"<{type(obj).__name__} whose repr fails>"


def told(error: BaseException) -> str:
    """Return the type and text of an exception."""
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:  # noqa: BLE001 - user code
        return f"{type(error).__name__} (its text can't be shown)"
