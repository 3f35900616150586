"""procflow: a pool, processes and pipes that never hang, never break and never leave an orphan.

Everything that `multiprocessing` users know by name, and errors that say what happened. A name's module is imported
when the name is first used, so `import procflow` costs next to nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing import (
        Array as Array,
    )
    from multiprocessing import (
        AuthenticationError as AuthenticationError,
    )
    from multiprocessing import (
        Barrier as Barrier,
    )
    from multiprocessing import (
        BoundedSemaphore as BoundedSemaphore,
    )
    from multiprocessing import (
        BufferTooShort as BufferTooShort,
    )
    from multiprocessing import (
        Condition as Condition,
    )
    from multiprocessing import (
        Event as Event,
    )
    from multiprocessing import (
        JoinableQueue as JoinableQueue,
    )
    from multiprocessing import (
        Lock as Lock,
    )
    from multiprocessing import (
        Manager as Manager,
    )
    from multiprocessing import (
        ProcessError as ProcessError,
    )
    from multiprocessing import (
        Queue as Queue,
    )
    from multiprocessing import (
        RawArray as RawArray,
    )
    from multiprocessing import (
        RawValue as RawValue,
    )
    from multiprocessing import (
        RLock as RLock,
    )
    from multiprocessing import (
        Semaphore as Semaphore,
    )
    from multiprocessing import (
        SimpleQueue as SimpleQueue,
    )
    from multiprocessing import (
        Value as Value,
    )
    from multiprocessing import (
        active_children as active_children,
    )
    from multiprocessing import (
        allow_connection_pickling as allow_connection_pickling,
    )
    from multiprocessing import (
        current_process as current_process,
    )
    from multiprocessing import (
        freeze_support as freeze_support,
    )
    from multiprocessing import (
        get_logger as get_logger,
    )
    from multiprocessing import (
        log_to_stderr as log_to_stderr,
    )
    from multiprocessing import (
        parent_process as parent_process,
    )
    from multiprocessing import (
        set_executable as set_executable,
    )
    from multiprocessing import (
        set_forkserver_preload as set_forkserver_preload,
    )

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
    from procflow.errors import EngineError as EngineError
    from procflow.errors import ExecutorClosed as ExecutorClosed
    from procflow.errors import InitializerError as InitializerError
    from procflow.errors import NoCurrentTask as NoCurrentTask
    from procflow.errors import PeerReset as PeerReset
    from procflow.errors import PicklingError as PicklingError
    from procflow.errors import PoolBusy as PoolBusy
    from procflow.errors import PoolClosed as PoolClosed
    from procflow.errors import ProcessDied as ProcessDied
    from procflow.errors import ProcessStateError as ProcessStateError
    from procflow.errors import ProcflowError as ProcflowError
    from procflow.errors import ProtocolError as ProtocolError
    from procflow.errors import RemoteError as RemoteError
    from procflow.errors import RemoteTraceback as RemoteTraceback
    from procflow.errors import SupervisorGaveUp as SupervisorGaveUp
    from procflow.errors import TaskKilled as TaskKilled
    from procflow.errors import TaskTimeout as TaskTimeout
    from procflow.errors import TimeoutError as TimeoutError
    from procflow.errors import TruncatedMessage as TruncatedMessage
    from procflow.errors import UnpicklingError as UnpicklingError
    from procflow.errors import WorkerDied as WorkerDied
    from procflow.executor import PoolExecutor as PoolExecutor
    from procflow.pool import Pool as Pool
    from procflow.process import Process as Process
    from procflow.supervisor import Backoff as Backoff
    from procflow.supervisor import Supervisor as Supervisor
    from procflow.worker.captured import Captured as Captured
    from procflow.worker.captured import captured as captured
    from procflow.worker.supervised import heartbeat as heartbeat
    from procflow.worker.supervised import notify_ready as notify_ready
    from procflow.worker.task import TaskInfo as TaskInfo
    from procflow.worker.task import current_task as current_task

__version__ = "0.1.0"

_HOME = {
    "Connection": "connection",
    "Pipe": "connection",
    "wait": "connection",
    "Context": "context",
    "get_all_start_methods": "context",
    "get_context": "context",
    "get_start_method": "context",
    "set_start_method": "context",
    "cpu_count": "cpu",
    "Future": "dispatch.future",
    "CancelledError": "errors",
    "EngineError": "errors",
    "ExecutorClosed": "errors",
    "InitializerError": "errors",
    "NoCurrentTask": "errors",
    "PeerReset": "errors",
    "PicklingError": "errors",
    "PoolBusy": "errors",
    "PoolClosed": "errors",
    "ProcessDied": "errors",
    "ProcessStateError": "errors",
    "ProcflowError": "errors",
    "ProtocolError": "errors",
    "RemoteError": "errors",
    "RemoteTraceback": "errors",
    "SupervisorGaveUp": "errors",
    "TaskKilled": "errors",
    "TaskTimeout": "errors",
    "TimeoutError": "errors",
    "TruncatedMessage": "errors",
    "UnpicklingError": "errors",
    "WorkerDied": "errors",
    "Pool": "pool",
    "PoolExecutor": "executor",
    "Process": "process",
    "Backoff": "supervisor",
    "Supervisor": "supervisor",
    "Captured": "worker.captured",
    "captured": "worker.captured",
    "heartbeat": "worker.supervised",
    "notify_ready": "worker.supervised",
    "TaskInfo": "worker.task",
    "current_task": "worker.task",
}

# multiprocessing's own, bound to procflow's default context: so a Lock() from here fits the children started from here.
_OF_CONTEXT = (
    "Array",
    "AuthenticationError",
    "Barrier",
    "BoundedSemaphore",
    "BufferTooShort",
    "Condition",
    "Event",
    "JoinableQueue",
    "Lock",
    "Manager",
    "ProcessError",
    "Queue",
    "RLock",
    "RawArray",
    "RawValue",
    "Semaphore",
    "SimpleQueue",
    "Value",
    "active_children",
    "allow_connection_pickling",
    "current_process",
    "freeze_support",
    "get_logger",
    "log_to_stderr",
    "parent_process",
    "set_executable",
    "set_forkserver_preload",
)

__all__ = [*_HOME, *_OF_CONTEXT]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    from importlib import import_module  # the interpreter has it loaded

    if name in _HOME:
        value = getattr(import_module(f"procflow.{_HOME[name]}"), name)
    elif name in _OF_CONTEXT:
        value = getattr(import_module("procflow.context").default_context, name)
    else:
        raise AttributeError(f"module 'procflow' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
