"""What the children of the Supervisor tests run, and the programs that are sent signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import procflow
from procflow import Supervisor, heartbeat, notify_ready


def note(path: str, text: str) -> None:
    """Append a line, whole, whoever else does."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, f"{text}\n".encode())
    os.close(fd)


def works(log: str, name: str) -> None:
    """Run until SIGTERM; note the beginning and the end."""

    def leave(signum: int, frame: object) -> None:
        note(log, f"{name} ends")
        os._exit(0)

    signal.signal(signal.SIGTERM, leave)
    note(log, f"{name} begins")
    while True:
        signal.pause()


def works_slowly_at_first(log: str, name: str, gate: Any) -> None:
    gate.wait()
    note(log, f"{name} is ready")
    notify_ready()
    works(log, name)


def refuses(ready: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(ready, "refuses")
    while True:
        signal.pause()


def waits() -> None:
    threading.Event().wait()


def exits(code: int) -> None:
    sys.exit(code)


def never_ready() -> None:
    waits()


def hangs_once(log: str) -> None:
    """Beat until told to hang: the first of its kind falls silent, the second goes on."""
    first = not os.path.exists(log)
    note(log, "runs")
    notify_ready()
    beats = 0
    while not first or beats < 3:
        heartbeat()
        beats += 1
        time.sleep(0.02)
    waits()


def with_grandchild(log: str) -> None:
    below = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    note(log, str(below.pid))
    waits()


def supervises(log: str) -> None:
    """A supervisor in a process of its own."""
    with Supervisor() as inner:
        inner.add(works, (log, "inner one"), name="one")
        inner.add(works, (log, "inner two"), name="two")
        inner.join()


def program(method: str, log: str) -> None:
    """The main program of a test: sent SIGINT or SIGTERM while it supervises."""
    supervisor = Supervisor(context=procflow.get_context(method))
    for name in ("first", "second", "third"):
        supervisor.add(works, (log, name), name=name)
    with supervisor:
        supervisor.join()


def abandoned(method: str, log: str) -> None:
    """A main program that ends without stopping its supervisor."""
    supervisor = Supervisor(context=procflow.get_context(method))
    supervisor.add(works, (log, "first"))
    supervisor.add(works, (log, "second"))
    supervisor.start()
    while not os.path.exists(log) or os.path.getsize(log) < len("first begins second begins "):
        time.sleep(0.002)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started the tests may ignore it
    globals()[sys.argv[1]](*sys.argv[2:])
