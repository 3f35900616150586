"""Parent and shutdown: the user's program forks while a pool works."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

import procflow
from procflow.start import owned
from tests.faults.outside import Program
from tests.support import DEADLOCK


@pytest.mark.parametrize("ends", ["sys.exit", "os._exit"])
def test_a_fork_of_the_program_is_refused_the_pool_and_harms_nothing(ends: str, method: str, tmp_path: Path) -> None:
    with Program("fork_while_working", method, tmp_path, ends) as program:
        assert program.wait_end() == 0, program.stderr


def test_a_fork_by_another_thread_gets_no_copy_of_what_is_just_being_opened() -> None:
    """Such a copy of a task pipe hid the end of file from its worker, and `join` waited for ever."""
    about, told = threading.Event(), os.pipe()
    statuses: list[int] = []

    def fork() -> None:
        about.set()
        child = os.fork()
        if child == 0:
            try:
                os.fstat(opened[0])
            except OSError:
                os.write(told[1], b"closed")
            else:
                os.write(told[1], b"open")
            os._exit(0)
        statuses.append(os.waitpid(child, 0)[1])

    thread = threading.Thread(target=fork)
    opened: tuple[int, int] | tuple[()] = ()
    with owned.opening:
        opened = os.pipe()
        thread.start()
        assert about.wait(DEADLOCK)
        thread.join(0.1)  # it would fork now
        for fd in opened:
            owned.own(fd)
    thread.join(DEADLOCK)
    assert statuses == [0]
    assert os.read(told[0], 100) == b"closed"
    for fd in told:
        os.close(fd)
    for fd in opened:
        owned.close(fd)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_pools_that_are_opened_while_another_one_forks_end(method: str) -> None:
    done = threading.Event()
    with procflow.get_context("fork").Pool(2, maxtasksperchild=1) as other:

        def churn() -> None:
            while not done.is_set():
                assert other.map(abs, range(4), 1) == [0, 1, 2, 3]

        thread = threading.Thread(target=churn)
        thread.start()
        try:
            for _ in range(20):
                pool = procflow.get_context(method).Pool(2)
                assert pool.apply(abs, (-1,)) == 1
                pool.close()
                joiner = threading.Thread(target=pool.join, daemon=True)
                joiner.start()
                joiner.join(DEADLOCK)
                assert not joiner.is_alive(), repr(pool)
        finally:
            done.set()
            thread.join(DEADLOCK)
