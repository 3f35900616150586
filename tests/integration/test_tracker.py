"""multiprocessing's resource tracker and the pools that fork: one for all, and none before somebody needs it.

Each test is a program of its own, as this process has had its tracker for long.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from tests.support import DEADLOCK, wait_until

BEGINNING = """
import os, sys
import procflow

def make(nbytes=8):
    from multiprocessing import shared_memory
    memory = shared_memory.SharedMemory(create=True, size=nbytes)
    memory.buf[0] = 7
    memory.close()
    return memory.name

def read_and_unlink(name):
    from multiprocessing import shared_memory
    memory = shared_memory.SharedMemory(name)
    found = memory.buf[0]
    memory.close()
    memory.unlink()
    return found

def tracker_pipe():
    from multiprocessing import resource_tracker
    return os.fstat(resource_tracker.getfd()).st_ino

def nested():
    with context.Pool(1) as inner:
        return inner.apply(tracker_pipe), inner.apply(make)

def children():
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return len(file.read().split())

context = procflow.get_context("fork")
"""


def start(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BEGINNING + textwrap.dedent(program)],
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLOCK,
    )


def run(program: str) -> str:
    """Run it; return what it printed. Its errors, such as the tracker's own warnings, fail the test."""
    done = start(program)
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout.strip()


def test_a_pool_that_nobody_makes_shared_memory_in_starts_no_tracker() -> None:
    assert (
        run("""
        with context.Pool(2) as pool:
            pool.map(abs, range(10))
            print(children(), "multiprocessing.resource_tracker" in sys.modules)
        print(children())
        """)
        == "2 False\n0"
    )


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_shared_memory_that_a_task_has_made_outlives_its_worker_and_the_pool(method: str) -> None:
    assert (
        run(f"""
        context = procflow.get_context("{method}")
        with context.Pool(1, maxtasksperchild=1) as pool:
            names = [pool.apply(make) for _ in range(3)]
            pipes = [pool.apply(tracker_pipe) for _ in range(2)]
        assert pipes == [tracker_pipe()] * 2, pipes
        print(*[read_and_unlink(name) for name in names])
        """)
        == "7 7 7"
    )


def test_the_tracker_runs_as_soon_as_a_task_has_written_to_it() -> None:
    assert (
        run("""
        with context.Pool(1) as pool:
            before = children()
            name = pool.apply(make)
            print(children() - before)
            read_and_unlink(name)
        """)
        == "1"
    )


def test_what_a_task_notes_is_noted_when_its_result_is_there() -> None:
    assert (
        run("""
        with context.Pool(2) as pool:
            print(sum(read_and_unlink(name) for name in pool.imap_unordered(make, [8] * 50)))
        """)
        == "350"
    )


def test_the_tracker_is_the_one_of_the_pools_process_when_that_comes_to_need_it_first() -> None:
    assert (
        run("""
        with context.Pool(1) as pool:
            ours = tracker_pipe()
            name = make()
            assert pool.apply(tracker_pipe) == ours
            print(pool.apply(read_and_unlink, (name,)))
            with context.Pool(1) as later:
                assert later.apply(tracker_pipe) == ours
        """)
        == "7"
    )


def test_a_pool_in_a_worker_has_the_same_tracker() -> None:
    assert (
        run("""
        with context.Pool(1) as pool:
            pipe, name = pool.apply(nested)
            assert pool.apply(tracker_pipe) == pipe
        assert tracker_pipe() == pipe
        print(read_and_unlink(name))
        """)
        == "7"
    )


def test_a_fork_that_a_task_has_made_does_not_write_into_the_pools_pipes() -> None:
    assert (
        run("""
        def fork_and_track(n):
            child = os.fork()
            if not child:
                tracker_pipe()
                os._exit(0)
            return os.waitpid(child, 0)[1]

        with context.Pool(1) as pool:
            print(pool.map(fork_and_track, range(3)), pool.apply(read_and_unlink, (pool.apply(make),)))
        """)
        == "[0, 0, 0] 7"
    )


def test_a_fork_beside_the_pool_has_a_tracker_of_its_own_as_ever() -> None:
    assert (
        run("""
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads
        reading, writing = os.pipe()
        with context.Pool(1) as pool:
            pool.apply(abs, (1,))
            child = os.fork()
            if not child:
                os.write(writing, str(tracker_pipe()).encode())
                os._exit(0)
            os.waitpid(child, 0)
            theirs = int(os.read(reading, 100))
            print(theirs != pool.apply(tracker_pipe))
        """)
        == "True"
    )


def test_what_an_initializer_has_made_and_nobody_removed_goes_with_a_pool_that_is_terminated_at_once() -> None:
    done = start("""
        reading, writing = os.pipe()

        def tell_nobody():
            from procflow.start import tracker
            tracker._ask = None  # as if the pool had not come to read it
            os.write(writing, make().encode())

        pool = context.Pool(1, initializer=tell_nobody)
        print(os.read(reading, 100).decode(), flush=True)
        pool.terminate()
        pool.join()
        """)
    name = done.stdout.strip()
    assert done.returncode == 0
    assert name
    assert "leaked" in done.stderr  # the tracker's words
    wait_until(lambda: not os.path.exists(f"/dev/shm/{name}"), "the removal of what was leaked")


NO_ROOM = """
from procflow.start import interpreter
room = interpreter.spawn_python

def no_room(*_):
    raise BlockingIOError(11, "Resource temporarily unavailable")
"""


def test_shared_memory_can_be_made_though_there_is_no_room_for_a_tracker() -> None:
    assert (
        run(
            NO_ROOM
            + textwrap.dedent("""
            with context.Pool(1) as pool:
                pool.apply(abs, (1,))
                interpreter.spawn_python = no_room
                print(pool.apply(abs, (-2,)))
                def make_and_read():
                    return read_and_unlink(make())
                pool.apply(make_and_read)
                print(pool.apply(make_and_read))
            """)
        )
        == "2\n7"
    )


def test_when_there_is_room_again_the_tracker_is_told_what_was_made_before() -> None:
    done = start(
        NO_ROOM
        + textwrap.dedent("""
        with context.Pool(1) as pool:
            pool.apply(abs, (1,))
            interpreter.spawn_python = no_room
            print(pool.apply(make))
            interpreter.spawn_python = room
        """)
    )
    name = done.stdout.strip()
    assert done.returncode == 0
    assert name
    assert "leaked" in done.stderr  # the tracker's words
    wait_until(lambda: not os.path.exists(f"/dev/shm/{name}"), "the removal of what was leaked")
