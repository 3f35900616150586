"""Run the programs of `probes.py`, each in an interpreter of its own, for so many seconds at the most.

It may be procflow that hangs, so nothing here is procflow's: a subprocess writes to files, which nobody has to read for
it to go on, and is killed with its process group if it doesn't end by itself.

    begun -> ended       by itself, or by its own `faulthandler` after `limit` seconds, which gives the stacks
    begun -> killed      GRACE seconds later
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

from procflow.start import private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import IO

__all__ = ["Outcome", "run_checks", "run_measures"]

LOOK = 0.01  # seconds between two looks
GRACE = 30.0  # also for the start of the interpreter, before its limit begins


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one step."""

    name: str
    value: float | None  # seconds that a check took, or what was measured; None if it didn't come to its end
    error: str | None  # a traceback, or how it ended


def run_checks(method: str, limit: float, names: Iterable[str]) -> list[Outcome]:
    """The self-test of a start method. It takes `limit` seconds and GRACE at the most."""
    return _run(f"check({method!r}, {limit!r})", limit, names)


def run_measures(limit: float, names: Iterable[str]) -> list[Outcome]:
    """The measurements. They take `limit` seconds and GRACE at the most."""
    return _run(f"measure({limit!r})", limit, names)


def _run(call: str, limit: float, names: Iterable[str]) -> list[Outcome]:
    command = [sys.executable, *private.interpreter_flags(), "-c", f"from procflow.doctor.probes import *; {call}"]
    with tempfile.TemporaryFile() as lines, tempfile.TemporaryFile() as complaints:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=lines, stderr=complaints, start_new_session=True
        ) as program:
            try:
                ended = _wait(program, limit + GRACE)
            finally:
                _kill(program)
            if ended:
                how = _ending(program.wait(), limit)
            else:
                how = f"it did not end within {limit + GRACE:g} s, and was killed"
        return _outcomes(_text(lines), f"{how}\n{_text(complaints)}".strip(), names)


def _ending(exitcode: int, limit: float) -> str:
    return "" if exitcode == 0 else f"the program ended with exit code {exitcode}; its limit is {limit:g} s"


def _wait(program: subprocess.Popen[bytes], timeout: float) -> bool:
    """Wait until it has ended, but do not reap it where that can be put off; False after so many seconds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if hasattr(os, "waitid"):
            ended = os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        else:
            ended = program.poll() is not None
        if ended:
            return True
        time.sleep(LOOK)
    return False


def _kill(program: subprocess.Popen[bytes]) -> None:
    """End what is left of it and its group: it is not reaped yet, so its number is nobody else's."""
    if hasattr(os, "killpg") and hasattr(os, "waitid"):
        os.killpg(program.pid, signal.SIGKILL)
    else:
        program.kill()


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def _outcomes(text: str, complaint: str, names: Iterable[str]) -> list[Outcome]:
    """Pair the steps' beginnings with their ends; the one that has none is where the program ended."""
    begun: set[str] = set()
    ended: dict[str, Outcome] = {}
    for line in text.splitlines():
        try:
            facts = json.loads(line)
            name = facts["step"]
        except (ValueError, TypeError, KeyError):
            continue  # something else that is printed there, by a sitecustomize for example
        begun.add(name)
        if "value" in facts:
            ended[name] = Outcome(name, None if facts["error"] else facts["value"], facts["error"])
    return [
        ended.get(name) or Outcome(name, None, complaint if name in begun or not begun else "not run") for name in names
    ]
