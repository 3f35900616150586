"""What the tests share: how long to wait for a fact, and how to see what a test left behind."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import procflow

ROOT = Path(__file__).resolve().parents[1]
# For programs that tests run: procflow from where these tests have it, which may be a wheel's, and the tests.
PYTHONPATH = os.pathsep.join([str(Path(procflow.__file__).parents[1]), str(ROOT)])
PEERS = ("joblib_", "sem.loky")  # what other libraries name in /dev/shm, in programs that run beside the tests
DEADLOCK = 30.0  # seconds: reached by a bug, never by a slow machine


def wait_until(fact: Callable[[], object], what: str = "a fact", seconds: float = DEADLOCK) -> None:
    """Wait for a fact that nothing announces."""
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds} s"
        time.sleep(0.002)


def open_fds() -> dict[int, str]:
    """Return this process's descriptors and what they lead to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the one that listdir itself used
            pass
    return found


def descendants() -> dict[int, str]:
    """Return the processes below this one, zombies too: pid and command line."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found, level = {}, {os.getpid()}
    while level:
        level = {pid for pid, parent in parents.items() if parent in level}
        for pid in level:
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                command = "?"
            found[pid] = command or "(zombie)"
    return found


def mapped_by_others(name: str) -> bool:
    """Whether a program that is not below this one maps that piece of shared memory."""
    try:
        inode = str(os.stat(f"/dev/shm/{name}").st_ino)  # its mapping may have another name: sem_open(3) links it
    except OSError:
        return False
    ours = {os.getpid(), *descendants()}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in ours:
            try:
                lines = (entry / "maps").read_text().splitlines()
            except OSError:  # it has ended, or is another user's
                continue
            if any("/dev/shm/" in line and line.split()[4] == inode for line in lines):
                return True
    return False


class Leftovers:
    """What was there before a test; `check` asserts that nothing was added."""

    def __init__(self) -> None:
        gc.collect()
        self._fds, self._processes = open_fds(), descendants()
        self._threads = set(threading.enumerate())
        self._shm = set(os.listdir("/dev/shm"))

    def check(self) -> None:
        gc.collect()
        there = {name for name in os.listdir("/dev/shm") if not name.startswith(PEERS)}
        self._suspects = there - self._shm  # what comes later is another program's
        deadline = time.monotonic() + 5.0
        while (found := self._added()) and time.monotonic() < deadline:
            time.sleep(0.01)
            gc.collect()
        assert not found, f"left behind: {found}"

    def _added(self) -> dict[str, object]:
        fds = {fd: to for fd, to in open_fds().items() if fd not in self._fds}
        processes = {pid: line for pid, line in descendants().items() if pid not in self._processes}
        threads = [thread for thread in threading.enumerate() if thread not in self._threads]
        shm = sorted(self._suspects & set(os.listdir("/dev/shm")))
        shm = [name for name in shm if not mapped_by_others(name)]
        found = {"fds": fds, "processes": processes, "threads": threads, "shared memory": shm}
        return {name: added for name, added in found.items() if added}
