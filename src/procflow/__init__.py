"""procflow: a pool, processes and pipes that never hang, never break and never leave an orphan.

Everything that `multiprocessing` users know by name, and errors that say what happened. A name's module is imported when
the name is first used, so `import procflow` costs next to nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from procflow.connection import Connection as Connection
    from procflow.connection import Pipe as Pipe
    from procflow.connection import wait as wait
    from procflow.context import Context as Context
    from procflow.context import get_all_start_methods as get_all_start_methods
    from procflow.context import get_context as get_context
    from procflow.context import get_start_method as get_start_method
    from procflow.context import set_start_method as set_start_method
    from procflow.cpu import cpu_count as cpu_count
    from procflow.dispatch.future import Future as Future
    from procflow.errors import CancelledError as CancelledError
    from procflow.errors import InitializerError as InitializerError
    from procflow.errors import PicklingError as PicklingError
    from procflow.errors import PoolClosed as PoolClosed
    from procflow.errors import ProcessStateError as ProcessStateError
    from procflow.errors import ProcflowError as ProcflowError
    from procflow.errors import RemoteError as RemoteError
    from procflow.errors import RemoteTraceback as RemoteTraceback
    from procflow.errors import TimeoutError as TimeoutError  # noqa: A004
    from procflow.errors import UnpicklingError as UnpicklingError
    from procflow.errors import WorkerDied as WorkerDied
    from procflow.pool import Pool as Pool
    from procflow.process import Process as Process

__version__ = "0.1.0"

_HOME = {
    "Connection": "connection",
    "Context": "context",
    "Future": "dispatch.future",
    "Pipe": "connection",
    "Pool": "pool",
    "Process": "process",
    "active_children": "context",
    "cpu_count": "cpu",
    "current_process": "context",
    "freeze_support": "context",
    "get_all_start_methods": "context",
    "get_context": "context",
    "get_start_method": "context",
    "parent_process": "context",
    "set_start_method": "context",
    "wait": "connection",
    "CancelledError": "errors",
    "InitializerError": "errors",
    "PicklingError": "errors",
    "PoolClosed": "errors",
    "ProcessStateError": "errors",
    "ProcflowError": "errors",
    "RemoteError": "errors",
    "RemoteTraceback": "errors",
    "TimeoutError": "errors",
    "UnpicklingError": "errors",
    "WorkerDied": "errors",
}

__all__ = [*_HOME]  # noqa: PLE0604 - strings


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'procflow' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - already loaded by the interpreter

    value = getattr(import_module(f"procflow.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
