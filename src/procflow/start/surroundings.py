"""What a caller may ask for a child beyond what it inherits: checked where it asks, so that no child fails of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["checked_env", "checked_preload"]


def checked_env(env: object, what: str = "env") -> dict[str, str]:
    """Return the variables as a dict of its own.

    Raises:
        TypeError: It is no mapping of strings to strings.
        ValueError: No environment can have such a name or such a value.
    """
    if not isinstance(env, Mapping):
        raise TypeError(f"{what} must be a mapping of names to values, not {env!r}")
    checked: dict[str, str] = {}
    for name, value in env.items():  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"{what} must have strings for names and values, not {name!r}: {value!r}")
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise ValueError(f"{what} has {name!r}: {value!r}, which no environment can have")
        checked[name] = value
    return checked


def checked_preload(modules: object) -> tuple[str, ...]:
    """Return the names of modules as a tuple.

    Raises:
        TypeError: It is no list of strings.
        ValueError: One of them is no name that can be imported.
    """
    if isinstance(modules, str) or not isinstance(modules, Sequence):
        raise TypeError(f"preload must be a list of modules' names, not {modules!r}")
    names: list[str] = []
    for name in modules:  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(name, str):
            raise TypeError(f"preload must be a list of modules' names, and {name!r} is not a string")
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"preload must be a list of modules' names, and {name!r} can't be one")
        names.append(name)
    return tuple(names)
