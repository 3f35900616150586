"""What the workers do in test_arrays.py."""

from __future__ import annotations

import os
import pickle
import signal
from pathlib import Path
from typing import Any

import numpy as np

SIZE = 100_000  # bytes: some blocks' worth
kept: list[Any] = []


class Buffer:
    """A class that gives its memory away (PEP 574)."""

    def __init__(self, data: Any) -> None:
        self.data = memoryview(data)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Buffer, (pickle.PickleBuffer(self.data),)


class Carrier(Exception):
    """An exception with data."""


def echo(value: Any) -> Any:
    return value


def total(array: Any) -> float:
    return float(array.sum())


def filled(n: int) -> Any:
    return np.full(SIZE, n % 256, np.uint8)


def many(n: int) -> list[Any]:
    return [np.full(SIZE, (n + i) % 256, np.uint8) for i in range(5)]


def scribble(array: Any) -> int:
    before = int(array[0])
    array[:] = 255
    return before


def keep(array: Any) -> int:
    kept.append(array)
    return os.getpid()


def kept_values(_: object) -> list[list[int]]:
    return [sorted(set(array.tolist())) for array in kept]


def raising(array: Any) -> None:
    raise Carrier(array, "with it")


def die_after(array: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)
    return array


def die_in_fork_of_mine(array: Any) -> Any:
    """A child of the task reads the argument after the task is done with it, and its parent's memory is used again."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        array[0] = 1
        os.write(writer, bytes(array[:2]))
        os._exit(0)
    os.close(writer)
    told = os.read(reader, 2)
    os.close(reader)
    os.wait()
    return told, bytes(array[:2])


def with_buffers(n: int) -> Any:
    return {"array": filled(n), "bytes": bytes([n]) * SIZE, "small": np.arange(3)}


def lambda_result(n: int) -> Any:
    array = filled(n)
    return lambda: array


class DiesWhilePickled:
    def __reduce__(self) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)
        return str, ()


def die_while_pickling(_: object) -> Any:
    return [filled(1), DiesWhilePickled()]


def no_memory_for_blocks(_: object) -> None:
    """Let no file of this process grow from now on."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def memory_files() -> dict[str, int]:
    """Bytes that the pools' files for big data hold in memory, each once: a map of its table has a copy of the fd."""
    found = {}
    for fd in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(fd)
            if "procflow-" in target and "status" not in target:
                found[str(fd.stat().st_ino)] = fd.stat().st_blocks * 512
        except OSError:
            pass
    return found


def my_memory(_: object) -> tuple[int, int]:
    """Descriptors and mappings of this worker."""
    return len(os.listdir("/proc/self/fd")), len(Path("/proc/self/maps").read_text().splitlines())
