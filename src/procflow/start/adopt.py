"""A child that did not import multiprocessing still is one of its processes, should its code import it later.

`multiprocessing.current_process()` has the name the parent gave and the family's authkey, `parent_process()` is the
parent, and SharedMemory and semaphores made here report to the parent's resource tracker. multiprocessing is adopted
at once where it is imported already (a fork), else by an import hook right after its import; an import-light worker
never pays for it.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

_PathFinder = sys.modules["_frozen_importlib_external"].PathFinder  # importlib.machinery would be an import more


def adopt_when_imported(record: dict[str, Any], sentinel: int, tracker: int) -> None:
    """Adopt the modules of multiprocessing now, or as soon as they are imported."""
    jobs: dict[str, Callable[[ModuleType], None]] = {
        "multiprocessing.process": lambda module: adopt_process(
            module,
            name=record["name"],
            parent_name=record["parent_name"],
            parent_pid=record["parent_pid"],
            authkey=record["authkey"],
            original_dir=record["original_dir"],
            sentinel=sentinel,
        )
    }
    if tracker >= 0:
        jobs["multiprocessing.resource_tracker"] = lambda module: _adopt_tracker(module, tracker)
    if record["log"] is not None:
        jobs["multiprocessing.util"] = lambda module: _adopt_logging(module, *record["log"])
    for name in list(jobs):
        module = sys.modules.get(name)
        if module is not None:
            jobs.pop(name)(module)
    if jobs:
        sys.meta_path.insert(0, Adopter(jobs))


def adopt_process(
    module: Any,  # multiprocessing.process, whose private state is the very subject here
    *,
    name: str,
    parent_name: str,
    parent_pid: int,
    authkey: bytes,
    original_dir: str | None,
    sentinel: int,
) -> None:
    """Make this process known to `multiprocessing.process` under its name, as the child of its parent."""
    # What the main process has (`_MainProcess`, which the module deletes again), with a parent. Not daemonic: tasks
    # may have children of their own.
    process = module.BaseProcess.__new__(module.BaseProcess)
    process.__dict__.update(
        _identity=(),
        _name=name,
        _parent_name=parent_name,
        _parent_pid=parent_pid,
        _popen=None,
        _closed=False,
        _config={"authkey": module.AuthenticationString(authkey), "semprefix": "/mp"},
    )
    module._current_process = process
    module._parent_process = module._ParentProcess(parent_name, parent_pid, sentinel)
    module._children = set()
    if original_dir is not None:
        module.ORIGINAL_DIR = original_dir
    from procflow.start import main_module

    if main_module.replaying():
        process._inheriting = True


def _adopt_logging(module: Any, level: int, to_stderr: bool) -> None:
    logger = module.log_to_stderr() if to_stderr else module.get_logger()
    logger.setLevel(level)


def _adopt_tracker(module: Any, fd: int) -> None:
    module._resource_tracker._fd = fd


class Adopter:
    """A finder that finds nothing of its own: it runs a job right after the modules it waits for."""

    def __init__(self, jobs: dict[str, Callable[[ModuleType], None]]) -> None:
        self._jobs = jobs

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in self._jobs:
            return None
        spec: ModuleSpec | None = _PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        spec.loader = _ThenAdopt(spec, self._jobs.pop(name))  # type: ignore[assignment]
        if not self._jobs:
            sys.meta_path.remove(self)
        return spec


class _ThenAdopt:
    """The module's own loader, with the job behind it."""

    def __init__(self, spec: ModuleSpec, job: Callable[[ModuleType], None]) -> None:
        self._spec, self._loader, self._job = spec, spec.loader, job

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        assert self._loader is not None
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert self._loader is not None
        self._spec.loader = module.__loader__ = self._loader  # nobody else is to meet the stand-in
        self._loader.exec_module(module)
        self._job(module)
