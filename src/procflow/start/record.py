"""What a spawned or served child is told about its parent: one dict of plain values, marshalled.

Its keys:
    entry, bound, name                   what to run, whether to die with the parent, the child's name
    parent_name, parent_pid, authkey, original_dir, log     for multiprocessing, see adopt.py
    sys_path, sys_argv, cwd, env, umask  the parent's present surroundings
    main                                 see main_module.describe()
    start_method                         procflow's default method in the parent
    tracker, lifeline, fds, sigmask      numbers; the three last for spawn only
"""

from __future__ import annotations

import os
import sys
from multiprocessing import process

from procflow.start import child, main_module, private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def describe(
    *,
    entry: str,
    name: str,
    bound: bool,
    tracker: int,
    known_env: Mapping[str, str] | None,
    env: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Describe this process for a child.

    `known_env` is what the child has already; None: all of os.environ. `env` is what it is to have beside that.
    """
    current = process.current_process()
    return {
        "entry": entry,
        "bound": bound,
        "name": name,
        "parent_name": current.name,
        "parent_pid": os.getpid(),
        "authkey": bytes(current.authkey),
        "original_dir": private.original_dir(),
        "log": private.logging(),
        "sys_path": sys_path(),
        "sys_argv": [str(argument) for argument in getattr(sys, "argv", ())],
        "cwd": _cwd(),
        "env": _env_changes(known_env, env or {}),
        "umask": None if known_env is None else _umask(),
        "main": main_module.describe(),
        "start_method": child.start_method,
        "tracker": tracker,
    }


def sys_path() -> list[str]:
    """The search path as a child is to have it."""
    # '' means the directory that the program was started in, which need not be the current one any more.
    original = private.original_dir()
    return [original if entry == "" and original is not None else str(entry) for entry in sys.path]


def _cwd() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None  # it was removed


def _env_changes(known: Mapping[str, str] | None, more: Mapping[str, str]) -> tuple[dict[str, str], list[str]] | None:
    if known is None:
        return (dict(more), []) if more else None
    now = {**os.environ, **more}
    if now == known:
        return None
    changed = {name: value for name, value in now.items() if known.get(name) != value}
    return changed, [name for name in known if name not in now]


def _umask() -> int | None:
    """This process's umask, read without setting it: os.umask(0) for an instant would bite another thread's open()."""
    try:
        fd = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(fd, 4096)
    finally:
        os.close(fd)
    _, found, rest = text.partition(b"\nUmask:")
    return int(rest.split(b"\n", 1)[0], 8) if found else None
