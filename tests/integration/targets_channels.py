"""What the children of the channel tests run."""

from __future__ import annotations

import signal
import threading
from typing import Any


def doubles(connection: Any) -> None:
    for number in connection:
        connection.send(2 * number)


def sends_and_dies(connection: Any) -> None:
    connection.send("last words")
    signal.raise_signal(signal.SIGKILL)


def sends_large(connection: Any, nbytes: int) -> None:
    connection.send(b"x" * nbytes)


def take_gate(gate: Any) -> None:
    global _gate
    _gate = gate


_gate: Any = None  # of a pool's worker


def waits_for_gate() -> str:
    assert _gate.wait(30)
    return "passed the gate"


def waits() -> None:
    threading.Event().wait()


def adds_one_and_keeps(connection: Any) -> None:
    kept = []
    for array in connection:
        array[:] += 1
        kept.append(array)
        connection.send(array)
    assert len({float(array[0]) for array in kept}) == len(kept)
