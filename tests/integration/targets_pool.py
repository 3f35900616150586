"""Tasks for test_pool_faults.py."""

from __future__ import annotations

import builtins
import os
import signal
import stat
import time
from multiprocessing import resource_tracker
from pathlib import Path


def double(n: int) -> int:
    return 2 * n


def fork_and_return_in_both(n: int) -> int:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return n


def close_all_descriptors() -> str:
    os.closerange(3, 256)
    return "closed"


def write_garbage_into_the_pipes() -> None:
    tracker = resource_tracker.getfd()
    for fd in range(3, 256):
        try:
            if fd != tracker and stat.S_ISFIFO(os.fstat(fd).st_mode):
                os.write(fd, b"\xfe" * 64)
        except OSError:
            pass


class RaisesWhenPickled:
    def __init__(self, raised: str) -> None:
        self.raised = raised

    def __reduce__(self) -> str:
        raise getattr(builtins, self.raised)


class HasNoRepr:
    def __call__(self) -> None: ...

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __reduce__(self) -> str:
        raise ValueError("no pickle")


def wait_for_a_signal() -> None:
    signal.pause()


def ignore_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def sum_in_a_pool(method: str, n: int) -> int:
    import procflow

    with procflow.get_context(method).Pool(2) as pool:
        return sum(pool.map(double, range(n)))


def wait_for_file(path: str | Path) -> bool:
    while not os.path.exists(path):
        time.sleep(0.001)
    return True


def make_file(path: str) -> None:
    Path(path).touch()


class Stubborn(Exception):
    """An exception that overrides what a worker must use to send it."""

    def with_traceback(self, tb: object) -> Stubborn:
        raise RuntimeError("not mine")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"can't set {name}")


def raise_stubborn() -> None:
    raise Stubborn("here")


def tell_and_wait_for_file(told: Path, path: Path) -> bool:
    told.touch()
    return wait_for_file(path)


def double_or_wait_for_file(item: int | Path) -> object:
    return 2 * item if isinstance(item, int) else wait_for_file(item) and item


def pid_after_a_while(n: int) -> int:
    time.sleep(0.02)  # several times what makes the pool look
    return os.getpid()


def append_line(path: Path, n: int) -> int:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, b"%d\n" % n)
    os.close(fd)
    return n


def keep(_: object) -> None:
    pass


class RaisesWhenUnpickled:
    def __reduce__(self) -> tuple[object, ...]:
        return _refuse, ()


def _refuse() -> None:
    raise LookupError("no such thing here")


class Signal:
    """Sends itself where it is unpickled."""

    def __init__(self, signum: int) -> None:
        self.signum = signum

    def __reduce__(self) -> tuple[object, ...]:
        return signal.raise_signal, (self.signum,)


def raises_signal_where_it_is_unpickled(signum: int) -> Signal:
    return Signal(signum)
