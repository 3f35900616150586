"""Contexts: everything that the procflow module has, bound to one start method; and procflow's default method.

    unset -> fixed     by set_start_method(), or by the first use of the default; `force=True` sets it again

The default is forkserver where it exists, else spawn, on every Python: a fork of a process that has threads can
deadlock in the child. It is procflow's own; multiprocessing's default stays as it is.
"""

from __future__ import annotations

import multiprocessing.context as _stdlib
import os

from procflow.process import ForkProcess, ForkServerProcess, Process, SpawnProcess
from procflow.start import child, main_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, Literal, Unpack

    from procflow.connection import Connection
    from procflow.engines.setup import WorkerOptions
    from procflow.pool import Pool

__all__ = [
    "Context",
    "default_context",
    "get_all_start_methods",
    "get_context",
    "get_start_method",
    "set_start_method",
]


class Context(_stdlib.BaseContext):
    """Has everything that procflow has, with a fixed start method. `get_context(method)` gives the one of a method.

    Locks, queues, shared values and managers are multiprocessing's own, made so that children of this method can
    inherit them.
    """

    _name: str
    Process = Process  # of each context its own

    def get_context(self, method: str | None = None) -> Context:  # type: ignore[override]
        """This context, or that of another method.

        Raises:
            ValueError: The method is unknown, or not available on this platform.
        """
        return self if method is None else _context_of(method)

    def get_start_method(self, allow_none: bool = False) -> str:
        """The name of the start method."""
        return self._name

    def set_start_method(self, method: str | None, force: bool = False) -> None:
        """Always an error: only the default context's method can be set."""
        raise ValueError(f"cannot set the start method of a context: this one is {self._name!r} for good")

    def get_all_start_methods(self) -> list[str]:
        """The methods available here, the default one first."""
        return list(_contexts)

    def Pool(  # type: ignore[override]
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        *,
        engine: Literal["local", "serial"] = "local",
        max_memory_per_worker: int | None = None,
        start_timeout: float | None = 600.0,
        record: str | os.PathLike[str] | None = None,
        **workers: Unpack[WorkerOptions],
    ) -> Pool:
        """A pool of worker processes started by this context's method."""
        from procflow.pool import Pool

        return Pool(
            processes,
            initializer,
            initargs,
            maxtasksperchild,
            context=self.get_context(),
            engine=engine,
            max_memory_per_worker=max_memory_per_worker,
            start_timeout=start_timeout,
            record=record,
            **workers,
        )

    def Pipe(self, duplex: bool = True) -> tuple[Connection[Any, Any], Connection[Any, Any]]:  # type: ignore[override]
        """Two connected Connections; with `duplex=False` the first only receives and the second only sends."""
        from procflow.connection import Pipe

        return Pipe(duplex)

    def wait(self, object_list: Iterable[Any], timeout: float | None = None) -> list[Any]:
        """Those of the connections, sockets and sentinels that are ready, waiting for the first."""
        from procflow.connection import wait

        return list(wait(object_list, timeout))

    def cpu_count(self) -> int:
        """The CPUs that this process may really use."""
        from procflow.cpu import cpu_count

        return cpu_count()

    def set_executable(self, executable: str | bytes | os.PathLike[str]) -> None:
        """The interpreter for children of spawn, and for the fork server, instead of `sys.executable`."""
        from procflow.start import interpreter

        interpreter.set_executable(executable)

    def set_forkserver_preload(self, module_names: Sequence[str]) -> None:
        """Modules that the fork server imports once, so that its children have them at no cost. A hint."""
        from procflow.start.server import the_server

        the_server.set_preload(module_names)

    def __reduce__(self) -> tuple[Callable[[str], Context], tuple[str]]:
        return _context_of, (self._name,)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name}>"


class ForkContext(Context):
    """Children are forks of this process."""

    _name = "fork"
    Process = ForkProcess


class SpawnContext(Context):
    """Children are fresh interpreters."""

    _name = "spawn"
    Process = SpawnProcess


class ForkServerContext(Context):
    """Children are forks of a small server process."""

    _name = "forkserver"
    Process = ForkServerProcess


class DefaultContext(Context):
    """The context behind the functions of the procflow module: its method may be set, once."""

    Process = Process

    def __init__(self) -> None:
        self._fixed: Context | None = None

    def get_context(self, method: str | None = None) -> Context:  # type: ignore[override]
        """The context of `method`; without one, that of the default method, which is fixed from then on."""
        if method is not None:
            return _context_of(method)
        if self._fixed is None:
            self._fixed = _context_of(self._preset())
        return self._fixed

    def get_start_method(self, allow_none: bool = False) -> str | None:  # type: ignore[override]
        """The default start method; with `allow_none`, None if none was set yet."""
        if self._fixed is None and allow_none:
            return child.start_method
        return self.get_context()._name

    def set_start_method(self, method: str | None, force: bool = False) -> None:
        """Set the default start method: once, at the start of the program.

        Raises:
            ValueError: The method is unknown, or not available on this platform.
            RuntimeError: It was set, or used, before; `force=True` sets it all the same.
        """
        if main_module.replaying():
            return  # a script without a main guard, run again in a child for its names: its choice is known here
        if method is None and force:
            self._fixed = child.start_method = None
            return
        chosen = _context_of(method)
        if self._fixed is not None and not force:
            raise RuntimeError(f"context has already been set: the start method is {self._fixed._name!r}")
        self._fixed, child.start_method = chosen, chosen._name

    def unfix(self) -> None:
        """Forget what was fixed by use: this process is a child now, and starts with what it was told."""
        self._fixed = None

    def _preset(self) -> str:
        return child.start_method or next(iter(_contexts))

    def __reduce__(self) -> str:  # type: ignore[override]
        return "default_context"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.get_start_method(allow_none=True) or 'unset'}>"


def _available() -> dict[str, Context]:
    """By name, the default method first."""
    from multiprocessing import reduction

    if not hasattr(os, "fork"):
        return {"spawn": SpawnContext()}
    served: dict[str, Context] = {"forkserver": ForkServerContext()} if reduction.HAVE_SEND_HANDLE else {}
    return served | {"spawn": SpawnContext(), "fork": ForkContext()}


def _context_of(method: str | None) -> Context:
    try:
        return _contexts[method]  # type: ignore[index]  # None is not there, as an unknown name is not
    except (KeyError, TypeError):
        known = ", ".join(repr(name) for name in _contexts)
        raise ValueError(f"cannot find context for {method!r}: the start methods available here are {known}") from None


_contexts = _available()
default_context = DefaultContext()

get_context = default_context.get_context
get_start_method = default_context.get_start_method
set_start_method = default_context.set_start_method
get_all_start_methods = default_context.get_all_start_methods
