"""What the tasks of the fault suite do to their workers."""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import os
import random
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any


def double(n: int) -> int:
    return 2 * n


def sigkill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()


def segfault() -> None:
    faulthandler.disable()
    ctypes.string_at(0)


def abort() -> None:
    faulthandler.disable()
    os.abort()


def os_exit() -> None:
    os._exit(3)


def sys_exit() -> None:
    sys.exit(3)


def raise_value_error() -> None:
    raise ValueError("not today")


def raise_it(kind: type[BaseException]) -> None:
    raise kind("here")


def exceed_memory_limit() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, before[1]))
    try:
        bytearray(1 << 31)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def pid_after_a_moment(_: int) -> int:
    time.sleep(0.02)  # so that others get some of the calls
    return os.getpid()


def length(data: bytes) -> int:
    return len(data)


def echo(data: bytes) -> bytes:
    return data


class DiesWhenPickled:
    def __reduce__(self) -> Any:
        sigkill()


def return_then_die() -> object:
    threading.Thread(target=_die_soon, daemon=True).start()
    return b"x" * 200_000_000, DiesWhenPickled()


def _die_soon() -> None:
    time.sleep(0.05)
    sigkill()


def stop_yourself() -> int:
    os.kill(os.getpid(), signal.SIGSTOP)
    return os.getpid()


def fork(ends: str, gate: Path) -> str:
    child = os.fork()
    if child:
        if ends != "outlive":
            os.waitpid(child, 0)
        return "parent"
    if ends == "exit":
        os._exit(0)
    if ends == "outlive":
        os.close(1)
        os.close(2)
        while not gate.exists():
            time.sleep(0.01)
        os._exit(0)
    return "child"


def start_threads() -> str:
    for daemon in (True, False):
        threading.Thread(target=time.sleep, args=(0.2,), daemon=daemon).start()
    return "started"


def change_surroundings() -> str:
    os.chdir("/")
    os.environ.clear()
    sys.path.clear()
    return "changed"


def ignore_signals() -> str:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(signum, signal.SIG_IGN)
    return "ignored"


class Missing:
    """A function that a worker does not find."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __call__(self, *_: object) -> None: ...

    def __reduce__(self) -> Any:
        return _find, (self.module, self.name)


def _find(module: str, name: str) -> object:
    return getattr(importlib.import_module(module), name)


def double_or_die(share: float, n: int) -> int:
    if random.random() < share:
        sigkill()
    return 2 * n


def map_in_a_pool(method: str) -> list[int]:
    import procflow

    with procflow.get_context(method).Pool(2) as pool:
        return pool.map(double, range(3))


def workers_of_a_pool_in_a_task(method: str) -> list[int]:
    """As many as nobody has asked for, here and in a task of such a pool."""
    import procflow
    from procflow.cpu import default_workers

    with procflow.get_context(method).Pool() as pool:
        return [default_workers(), pool.apply(default_workers)]


def work_and_double(n: int) -> int:
    """Work for a fifth of a millisecond."""
    end = time.perf_counter() + 2e-4
    while time.perf_counter() < end:
        pass
    return 2 * n


def begin_and_wait(folder: Path) -> None:
    """An initializer that the test lets go, or never."""
    (folder / f"began-{os.getpid()}").touch()
    while not (folder / "gate").exists():
        time.sleep(0.002)


def print_much(megabytes: int) -> int:
    for stream in (sys.stdout, sys.stderr):
        for _ in range(megabytes):
            stream.write("x" * 999_999 + "\n")
    return megabytes


def limit_files(nbytes: int) -> None:
    """An initializer: files that this process writes may not be larger."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
