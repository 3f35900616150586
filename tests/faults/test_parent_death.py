"""A parent that is killed takes its workers and daemonic processes along, whatever they do. Judged by pidfds."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import DEADLOCK, wait_until

LIMITS = {"forkserver": 0.1, "spawn": 2.0, "fork": 2.0}  # seconds; a machine under load gets a second more
NOISE = 1.0

POOL = """
import sys
import procflow, faults_tasks

if __name__ == "__main__":
    pool = procflow.get_context(sys.argv[1]).Pool(2)
    workers = set()
    while len(workers) < 2:
        workers.update(pool.map(faults_tasks.who, range(20), 1))
    held = [] if sys.argv[2] == "idle" else [pool.submit(getattr(faults_tasks, sys.argv[2])) for _ in range(2)]
    print("started", flush=True)
    while sys.argv[2] == "writing":
        pool.map(faults_tasks.give_much, range(10), 1)
    sys.stdin.read()
"""

PROCESSES = """
import sys
import procflow, faults_tasks

if __name__ == "__main__":
    ctx = procflow.get_context(sys.argv[1])
    held = [ctx.Process(target=getattr(faults_tasks, sys.argv[2]), daemon=True) for _ in range(2)]
    for process in held:
        process.start()
    print("started", flush=True)
    sys.stdin.read()
"""

TASKS = """
import os, sys, time

def who(_):
    time.sleep(0.01)
    return os.getpid()

def begun():
    os.write(2, b"begun")  # one write, so two workers' words do not mix

def computing():
    begun()
    while True:
        pass

def in_a_c_call():
    begun()
    return sum(range(10**15))  # never comes back to the interpreter, and holds the GIL

def writing():
    begun()

def give_much(_):
    return bytes(50_000_000), [bytes(1000) for _ in range(10_000)]
"""


def below(pid: int) -> set[int]:
    """The living processes under `pid`."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found: set[int] = set()
    level = {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level}
        found |= level
    return found


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="judged by pidfds")
@pytest.mark.parametrize(
    ("text", "doing", "signum"),
    [
        (POOL, "idle", signal.SIGKILL),
        (POOL, "computing", signal.SIGKILL),
        (POOL, "computing", signal.SIGTERM),
        (POOL, "in_a_c_call", signal.SIGKILL),
        (POOL, "writing", signal.SIGKILL),
        (PROCESSES, "computing", signal.SIGKILL),
        (PROCESSES, "in_a_c_call", signal.SIGKILL),
    ],
    ids=["idle", "computing", "computing-sigterm", "c-call", "writing", "daemons", "daemons-c-call"],
)
def test_a_killed_parent_leaves_no_descendant(
    method: str, text: str, doing: str, signum: signal.Signals, tmp_path: Path
) -> None:
    (tmp_path / "parent.py").write_text(text)
    (tmp_path / "faults_tasks.py").write_text(TASKS)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py"), method, doing],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    assert parent.stderr is not None
    ends: dict[int, int] = {}
    try:
        assert parent.stdout.readline() == b"started\n"
        words = b""
        while doing != "idle" and words.count(b"begun") < 2:
            words += os.read(parent.stderr.fileno(), 100)
            assert words.startswith(b"begun"), words
        wait_until(lambda: len(below(parent.pid)) >= 2, "two processes")
        ends = {os.pidfd_open(pid): pid for pid in below(parent.pid)}
        begin = time.monotonic()
        parent.send_signal(signum)
        seconds = _until_all_ended(ends, begin)
        assert seconds < LIMITS[method] + NOISE
    finally:
        for end in ends:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(end, signal.SIGKILL)
            os.close(end)
        parent.kill()
        parent.wait(DEADLOCK)
        for stream in (parent.stdin, parent.stdout, parent.stderr):
            stream.close()


def _until_all_ended(ends: dict[int, int], begin: float) -> float:
    poll = select.poll()
    for end in ends:
        poll.register(end, select.POLLIN)
    left = set(ends)
    while left:
        ready = poll.poll(DEADLOCK * 1000)
        assert ready, f"still there: {[ends[end] for end in left]}"
        for end, _ in ready:
            poll.unregister(end)
            left.discard(end)
    return time.monotonic() - begin
