"""start.launch: birth, watch and end of a process, and that nothing is left when one of them fails."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from procflow.start import owned
from procflow.start.launch import Child, launch, launch_fork
from procflow.start.server import the_server
from tests.integration import targets_process as targets
from tests.integration.targets_process import wait_gone
from tests.support import DEADLOCK, wait_until

HERE = targets.__name__


@contextlib.contextmanager
def launched(method: str, entry: str, payload: bytes = b"", *, bound: bool = True) -> Iterator[tuple[Child, int]]:
    """A child with a pipe to write to, and our end of it."""
    read, write = os.pipe()
    try:
        child = launch(method, f"{HERE}:{entry}", payload, [write], name="launched", bound=bound)
    finally:
        os.close(write)
    try:
        yield child, read
    finally:
        os.close(read)
        child.send_signal(signal.SIGKILL)
        child.wait(DEADLOCK)
        child.close()


def read_all(fd: int) -> bytes:
    data = b""
    while chunk := os.read(fd, 65536):
        data += chunk
    return data


def test_the_entry_gets_payload_and_fds_and_gives_the_exit_code(method: str) -> None:
    with launched(method, "echo", b"x" * 1000) as (child, read):
        assert read_all(read) == b"1000 bytes, 1 fds"
        assert child.wait(DEADLOCK) == child.poll() == 7


def test_a_large_payload_does_not_block_the_parent(method: str) -> None:
    read, write = os.pipe()
    child = launch(method, f"{HERE}:echo", [b"x" * 2**24, bytearray(5)], [write], name="x", bound=True)
    os.close(write)
    assert read_all(read) == b"%d bytes, 1 fds" % (2**24 + 5)
    assert child.wait(DEADLOCK) == 7
    os.close(read)
    child.close()


def test_a_worker_does_not_import_multiprocessing(method: str) -> None:
    if method == "fork":
        pytest.skip("a fork has what its parent has")
    # In a program of its own: a server that served a Process has multiprocessing imported, on purpose.
    heavy = {"multiprocessing", "typing", "dataclasses", "logging", "inspect", "subprocess", "threading", "socket"}
    code = (
        f"import os, sys; sys.path[:0] = {[os.path.dirname(targets.__file__)]!r}\n"
        "from procflow.start.launch import launch\n"
        "read, write = os.pipe()\n"
        f"child = launch({method!r}, 'light_entry:modules', b'', [write], name='x', bound=True)\n"
        "os.close(write); print(os.read(read, 100000).decode()); child.wait()\n"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "procflow.start.child" in output.split()
    assert heavy.isdisjoint(output.split())


def test_multiprocessing_imported_late_knows_the_child_and_its_parent(method: str) -> None:
    with launched(method, "identity") as (_, read):
        assert read_all(read).decode() == f"launched False {os.getpid()} True"


def test_sixty_four_launches_wait_for_none_of_them(method: str) -> None:
    read, write = os.pipe()
    children = [launch(method, f"{HERE}:echo", b"", [write], name="x", bound=True) for _ in range(64 // 8)]
    os.close(write)
    assert len({child.pid for child in children}) == len(children)
    assert [child.wait(DEADLOCK) for child in children] == [7] * len(children)
    os.close(read)
    for child in children:
        child.close()


def test_the_sentinel_is_readable_at_the_end_and_not_before(method: str) -> None:
    with launched(method, "spin") as (child, read):
        assert child.pid == int(read_all(read))
        assert select.select([child.sentinel], [], [], 0) == ([], [], [])
        child.send_signal(signal.SIGKILL)
        assert select.select([child.sentinel], [], [], DEADLOCK)[0] == [child.sentinel]
        assert child.wait(DEADLOCK) == -signal.SIGKILL


def test_a_child_may_be_closed_by_one_thread_while_another_is_about_to_wait_for_it(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with launched(method, "spin") as (child, _):
        assert child.pid  # it is known: what is waited for is the end
        wait_readable = child._wait_readable

        def close_first(timeout: float | None) -> bool:
            child.send_signal(signal.SIGKILL)
            wait_until(lambda: child.poll() is not None, "the end of the child")
            child.close()
            return wait_readable(timeout)

        monkeypatch.setattr(child, "_wait_readable", close_first)
        assert child.wait(DEADLOCK) == -signal.SIGKILL


def test_the_sentinel_stays_open_while_a_thread_waits_for_it(method: str) -> None:
    with launched(method, "spin") as (child, _):
        sentinel = child.sentinel
        waiter = threading.Thread(target=child.wait, args=(DEADLOCK,))
        waiter.start()
        wait_until(lambda: child._waiters, "the waiting")
        child.close()
        os.fstat(sentinel)
        os.kill(child.pid, signal.SIGKILL)
        waiter.join(DEADLOCK)
        assert not waiter.is_alive()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(sentinel)


def test_bound_children_in_a_c_call_end_with_a_killed_parent(method: str) -> None:
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        os.close(read)
        targets.spin_in_children(method, write)
        os._exit(0)
    os.close(write)
    pids = [int(line) for line in read_all(read).split()]
    os.close(read)
    assert len(pids) == 3
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    wait_gone(pids)


def test_bound_children_end_with_a_killed_fork_server_and_the_next_launch_starts_another() -> None:
    def kill_the_server() -> int:
        with launched("forkserver", "spin") as (child, read):
            read_all(read)
            server = the_server.pid
            assert server is not None
            os.kill(server, signal.SIGKILL)
            assert child.wait(DEADLOCK) == 255  # nobody can know any more
            wait_gone([child.pid])
        with launched("forkserver", "echo") as (child, read):
            assert child.wait(DEADLOCK) == 7
            assert the_server.pid != server
        return 5

    # In a process of its own, since the other tests go on with the server that they know.
    process = launch_fork(kill_the_server, keep=(), name="x", bound=True)
    assert process.wait(DEADLOCK) == 5
    process.close()


def test_a_fork_by_anyone_does_not_hide_the_end_of_the_parents_pipes() -> None:
    read, write = os.pipe()
    owned.own(write)
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    owned.close(write)
    try:
        assert select.select([read], [], [], DEADLOCK)[0] == [read]
        assert os.read(read, 1) == b""
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(read)


def test_the_at_fork_hook_leaves_alone_what_is_owned_no_more() -> None:
    read, write = os.pipe()
    owned.own(write)
    owned.disown(write)  # as if it were closed, and the number another library's now
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, b"open")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 4) == b"open"
    os.close(read)
    os.close(write)


def test_a_copy_of_a_child_in_a_fork_knows_and_does_nothing() -> None:
    with launched("fork", "spin") as (child, read):
        read_all(read)

        def probe() -> int:
            child.send_signal(signal.SIGKILL)
            child.close()
            return 5 if child.poll() is None and child.wait(0) is None else 6

        other = launch_fork(probe, keep=(), name="other", bound=False)
        assert other.wait(DEADLOCK) == 5
        other.close()
        assert child.poll() is None


def test_a_child_that_someone_else_reaped_has_the_unknown_exit_code() -> None:
    child = launch_fork(lambda: 3, keep=(), name="x", bound=False)
    os.waitpid(child.pid, 0)
    assert child.wait(DEADLOCK) == 255
    child.close()


def test_without_free_fds_a_launch_is_an_os_error_and_leaves_nothing(method: str) -> None:
    with launched(method, "echo") as (child, _):
        child.wait(DEADLOCK)  # what is started once (server, lifeline, tracker) is there now
    before = sorted(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for spare in range(4):
        filled: list[int] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(before) + 40, hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    filled.append(os.dup(0))
            for _ in range(spare):
                os.close(filled.pop())
            try:
                started = launch(method, f"{HERE}:echo", b"", [1], name="x", bound=True)
            except OSError:
                pass
            else:
                started.wait(DEADLOCK)
                started.close()
        finally:
            for fd in filled:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert not multiprocessing.active_children()


def test_many_launches_leave_no_fd(method: str) -> None:
    with launched(method, "echo") as (child, _):
        child.wait(DEADLOCK)
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(10 if method == "spawn" else 40):
        with launched(method, "echo") as (child, _read):
            assert child.wait(DEADLOCK) == 7
    assert sorted(os.listdir("/proc/self/fd")) == before
