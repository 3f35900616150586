"""A program under test, seen from outside: in a session of its own, with what it prints and the processes below it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.support import DEADLOCK, PYTHONPATH, ROOT, wait_until


class Program:
    """One of `programs.py`, running."""

    def __init__(self, name: str, method: str, folder: Path, *args: object) -> None:
        self.folder = folder
        self.name = name
        out, err = (folder / "out").open("wb"), (folder / "err").open("wb")
        with out, err:  # files, not pipes: a descendant that is left behind must not keep us waiting
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.programs", name, method, str(folder), *map(str, args)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": PYTHONPATH},
            )
        self.family: list[psutil.Process] = []

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.look()
        for member in [psutil.Process(self.process.pid)] if self.process.poll() is None else []:
            member.kill()
        for member in self.alive():
            member.kill()
        self.process.wait()

    def wait_began(self, tasks: int = 1) -> None:
        """Wait until so many workers have begun a task, and remember the processes that there are."""
        wait_until(lambda: self.began() >= tasks or self.process.poll() is not None, f"{tasks} tasks of {self.name}")
        self.look()

    def began(self) -> int:
        return sum(1 for _ in self.folder.glob("began-*"))

    def look(self) -> None:
        """Remember the processes that there are now."""
        try:
            self.family += psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            pass

    def press_ctrl_c(self) -> None:
        """As a terminal does: to the whole group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def press_ctrl_c_until_it_tells(self) -> int:
        """As a user does when Python says that it has ignored one, in somebody's finalizer. Return how many it has."""
        self.press_ctrl_c()
        lost = 0

        def it_tells() -> bool:
            nonlocal lost
            if self.process.poll() is not None:
                return True
            if self.stderr.count("Exception ignored in") > lost:
                lost += 1
                self.press_ctrl_c()
            return False

        wait_until(it_tells, f"the end of {self.name}")
        return lost

    def wait_end(self) -> int:
        """Return the exit code, once the program has ended and everything below it."""
        try:
            code = self.process.wait(DEADLOCK)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} hangs:\n{self.stderr}") from None
        wait_until(lambda: not self.alive(), f"the end of {self.alive()} after {self.name}")
        return code

    def alive(self) -> list[psutil.Process]:
        return [member for member in self.family if member.is_running() and member.status() != psutil.STATUS_ZOMBIE]

    @property
    def stdout(self) -> str:
        return (self.folder / "out").read_text()

    @property
    def stderr(self) -> str:
        return (self.folder / "err").read_text()
