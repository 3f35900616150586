"""Log records of a worker: sent to the pool's process, which handles them as if they had been made there.

    record of any logger --> the root logger's one handler, `Sender` --> send(pickle) --> the result pipe, or a frame

L1  A worker that nobody logs in does not import `logging`: the import is what puts the handler there, if `logging` was
    not there at the start (fork; `preload`).
L2  What a task logs is on its way before its result is.
L3  A record is made plain before it travels: its message and its traceback are text; what else does not pickle is its
    repr. A fork that a task has made sends nothing.
"""

from __future__ import annotations

import os
import sys
from _thread import _local  # pyright: ignore[reportPrivateUsage] # threading.local, without the import

from procflow.wire.pickling import dumps
from procflow.worker.task import present_teller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from logging import LogRecord
    from types import ModuleType
    from typing import Any

    Send = Callable[[bytes], object]

__all__ = ["levels_here", "send_all", "send_in_thread"]

_of_thread = _local()  # `send`, in a cluster's worker
_generation = 0  # of forks: see L3


def _note_fork() -> None:
    global _generation
    _generation += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def levels_here() -> dict[str, int] | None:
    """Return the levels that this process's loggers were given, by name, "" for the root; None: nobody logs here."""
    logging = sys.modules.get("logging")
    if logging is None:
        return None
    levels: dict[str, int] = {"": logging.getLogger().level}
    for name, logger in list(logging.Logger.manager.loggerDict.items()):
        level = getattr(logger, "level", 0)  # a place in a path of names that nobody has asked for has none
        if level:
            levels[name] = level
    return levels


def send_all(send: Send, name: str, slot: int, levels: dict[str, int] | None) -> None:
    """From now on send the records of this process, which is a pool's worker, of this name and in this slot.

    Handlers that it has by now are copies of its parent's, and are taken out: the parent's own will get the records.
    """

    def set_up(logging: ModuleType) -> None:
        for logger in list(logging.Logger.manager.loggerDict.values()):
            if isinstance(logger, logging.Logger):
                logger.handlers.clear()
                logger.propagate = True
        root = logging.getLogger()
        root.handlers.clear()
        root.addHandler(_make_sender(logging, lambda: send, {"processName": name, "worker": slot}))
        for of, level in (levels or {}).items():
            logging.getLogger(of).setLevel(level)

    _when_imported(set_up)


def send_in_thread(send: Send, slot: int) -> None:
    """Until the next call send the records of this thread, in a process that is not the pool's; its handlers stay."""
    _of_thread.send, _of_thread.slot = send, slot
    global _is_set_up
    if not _is_set_up:
        _is_set_up = True
        _when_imported(_set_up_beside)


_is_set_up = False


def _set_up_beside(logging: ModuleType) -> None:
    logging.getLogger().addHandler(_make_sender(logging, lambda: getattr(_of_thread, "send", None), {}))


def _make_sender(logging: ModuleType, find: Callable[[], Send | None], facts: dict[str, object]) -> Any:
    generation = _generation

    class Sender(logging.Handler):  # type: ignore[misc, name-defined]
        def emit(self, record: LogRecord) -> None:
            send = find()
            if send is None or generation != _generation:
                return
            try:
                send(_packed(logging, record, facts))
            except Exception:  # noqa: BLE001 - as every handler does
                self.handleError(record)

        def __repr__(self) -> str:
            return "<procflow: to the pool's process>"

    return Sender()


def _packed(logging: ModuleType, record: LogRecord, facts: dict[str, object]) -> bytes:
    """Make it plain, and pickle it."""
    place = present_teller()()
    told: dict[str, object] = {**vars(record), "worker": getattr(_of_thread, "slot", 0), **facts}
    told["task"] = None if place is None else place[0]
    told["msg"], told["args"] = record.getMessage(), None
    if record.exc_info and not record.exc_text:
        told["exc_text"] = logging.Formatter().formatException(record.exc_info)
    told["exc_info"] = None
    try:
        return dumps(told)
    except Exception:  # noqa: BLE001 - what the user has added to the record: anything may be raised
        plain = (str, int, float, bool, type(None))
        return dumps({key: value if isinstance(value, plain) else repr(value) for key, value in told.items()})


def _when_imported(set_up: Callable[[ModuleType], None]) -> None:
    """Call this with `logging`: now, if it is there, else as soon as somebody has imported it."""
    logging = sys.modules.get("logging")
    if logging is None:
        sys.meta_path.insert(0, _Watcher(set_up))
    else:
        set_up(logging)


class _Watcher:
    """Is asked for every module that is imported, and finds none; but once for `logging`, whose import it attends."""

    def __init__(self, set_up: Callable[[ModuleType], None]) -> None:
        self._set_up = set_up

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "logging":
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                self._attend(spec.loader)
                return spec
        return None

    def _attend(self, loader: Any) -> None:
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            self._set_up(module)

        try:
            loader.exec_module = exec_module
        except AttributeError:  # of a loader that is not Python's own, perhaps: records stay in the worker
            pass
