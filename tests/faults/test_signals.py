"""Parent and shutdown: Ctrl-C and other signals, wherever they meet the program."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults.outside import Program

WAITS = ["wait_in_map", "wait_in_imap", "wait_in_result", "wait_in_join", "wait_in_exit", "wait_as_follower"]


def ends_by_ctrl_c(program: Program, lost: int = 0) -> None:
    """One KeyboardInterrupt in the parent, nothing else printed (but what Python says of those lost), nobody left."""
    assert program.wait_end() == -signal.SIGINT, program.stderr
    assert program.stdout == ""
    assert program.stderr.startswith("Exception ignored in" if lost else "Traceback (most recent call"), program.stderr
    assert program.stderr.endswith("\nKeyboardInterrupt\n"), program.stderr
    assert program.stderr.splitlines().count("KeyboardInterrupt") == 1, program.stderr


@pytest.mark.parametrize("name", WAITS)
def test_ctrl_c_ends_a_program_that_waits(name: str, method: str, tmp_path: Path) -> None:
    with Program(name, method, tmp_path) as program:
        program.wait_began(2)
        program.press_ctrl_c()
        ends_by_ctrl_c(program)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["be_busy", "stream_busily", "open_and_close"])
@pytest.mark.parametrize("seed", range(5))
def test_ctrl_c_ends_a_program_between_any_two_steps(name: str, seed: int, method: str, tmp_path: Path) -> None:
    with Program(name, method, tmp_path) as program:
        program.wait_began()
        time.sleep(random.Random(f"{name} {method} {seed}").random() / 5)  # the moment is what varies, nothing waits
        program.look()
        lost = program.press_ctrl_c_until_it_tells()
        ends_by_ctrl_c(program, lost)


@pytest.mark.parametrize("name", ["end_in_a_handler", "end_busily_in_a_handler"])
def test_a_handler_may_end_the_pool_that_it_interrupts(name: str, method: str, tmp_path: Path) -> None:
    with Program(name, method, tmp_path) as program:
        program.wait_began()
        program.process.send_signal(signal.SIGTERM)
        assert program.wait_end() == 7, program.stderr
        assert program.stderr == ""


def test_a_handler_may_use_the_pool_that_it_interrupts(method: str, tmp_path: Path) -> None:
    with Program("use_in_a_handler", method, tmp_path) as program:
        assert program.wait_end() == 0, program.stderr
