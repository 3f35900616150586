"""Connections between real processes: passing them on, and noticing the end of the other side."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection as StdlibConnection
from typing import Any

import pytest

import procflow
from procflow.connection import Connection, Pipe, connections_in, note_launch, wait
from procflow.errors import TimeoutError, TruncatedMessage
from tests.support import DEADLOCK, wait_until

PROMPT = 0.1  # seconds from the death of the peer to the end of recv(), on a machine that has nothing else to do
SLACK = 10  # times as slow as that may the machine be, with both its cores loaded


def start(ctx: Any, target: Callable[..., object], *args: object, **options: Any) -> Any:
    """Start a process, and tell the connections among its arguments of it, if the launcher has not done so."""
    process = ctx.Process(target=target, args=args, **options)
    given = connections_in(vars(process), inherited=ctx.get_start_method() == "fork")
    process.start()
    note_launch(process._popen, given)
    return process


@pytest.fixture
def launched(ctx: procflow.Context) -> Iterator[Callable[..., Any]]:
    """Start processes which are gone after the test."""
    processes: list[Any] = []

    def launch(target: Callable[..., object], *args: object, **options: Any) -> Any:
        processes.append(start(ctx, target, *args, **options))
        return processes[-1]

    yield launch
    for process in processes:
        process.kill()
        process.join(DEADLOCK)
        process.close()


@pytest.fixture(scope="session", autouse=True)
def multiprocessings_fork_server() -> None:
    """Start multiprocessing's own fork server, which stays for the rest of the session, before anything is counted."""
    process: Any = multiprocessing.get_context("forkserver").Process(target=abs, args=(1,))
    process.start()
    process.join()
    process.close()


@pytest.fixture(params=[True, False], ids=["duplex", "one-way"])
def pipe(request: pytest.FixtureRequest) -> Iterator[tuple[Connection, Connection]]:
    """(receiver, sender)"""
    receiver, sender = Pipe(request.param)
    with receiver, sender:
        yield receiver, sender


# ---- targets


def echo(connection: Connection) -> None:
    for obj in connection:
        connection.send(obj)


def send(connection: Connection, *objects: object) -> None:
    for obj in objects:
        connection.send(obj)


def send_zeros(connection: Connection, nbytes: int) -> None:
    connection.send_bytes(bytes(nbytes))


def send_and_stay(connection: Connection, obj: object) -> None:
    connection.send(obj)
    signal.pause()


def die_in_mid_message(connection: Connection) -> None:
    os.write(connection.fileno(), struct.pack("!i", 1000) + b"only the beginning")
    os.kill(os.getpid(), signal.SIGKILL)


def stay(connection: Connection | None = None) -> None:
    signal.pause()


def receive_once(connection: Connection) -> None:
    connection.recv()


def leave_a_grandchild(connection: Connection, report: Connection) -> None:
    """Fork a grandchild that outlives this process, holds the connection, and sends when it is told to."""
    if os.fork() == 0:
        report.send(os.getpid())
        report.recv()
        connection.send("from the grandchild")
        report.recv()
        os._exit(0)
    os._exit(0)


def report_the_end(connection: Connection, report: Connection) -> None:
    try:
        connection.recv()
    except EOFError:
        report.send("end of file")


def send_connection_on(carrier: Connection) -> None:
    near, far = Pipe()
    carrier.send(far)
    near.send("over a connection that came over a connection")
    near.recv()


def use_stdlib(connection: StdlibConnection) -> None:
    connection.send(type(connection).__module__)


# ---- passing connections


def test_objects_go_to_a_child_and_come_back(launched: Callable[..., Any]) -> None:
    one, other = Pipe()
    with one, other:
        launched(echo, other)
        for obj in (None, "text", list(range(1000)), bytes(2_000_000), {"nested": ({1, 2},)}):
            one.send(obj)
            assert one.recv(timeout=DEADLOCK) == obj


@pytest.mark.slow
def test_a_message_of_a_gibibyte_arrives(launched: Callable[..., Any], pipe: tuple[Connection, Connection]) -> None:
    receiver, sender = pipe
    launched(send_zeros, sender, 2**30)
    data = receiver.recv_bytes(timeout=4 * DEADLOCK)
    assert len(data) == 2**30
    assert not data.strip(b"\0")


def test_iteration_in_a_child_ends_when_the_parent_closes_its_end(launched: Callable[..., Any]) -> None:
    one, other = Pipe()
    with one:
        with other:
            child = launched(echo, other)
        one.send("only")
        assert one.recv(timeout=DEADLOCK) == "only"
        if child._start_method == "fork":
            child.kill()  # it inherited our end, too
        one.close()
    child.join(DEADLOCK)
    assert child.exitcode is not None


def test_a_connection_is_sent_over_a_connection(launched: Callable[..., Any]) -> None:
    one, other = Pipe()
    with one, other:
        launched(send_connection_on, other)
        with one.recv(timeout=DEADLOCK) as far:
            assert far.recv(timeout=DEADLOCK) == "over a connection that came over a connection"
            far.send("done")


def test_multiprocessings_process_takes_our_connection(method: str) -> None:
    theirs = multiprocessing.get_context(method)
    one, other = Pipe()
    with one, other:
        process = theirs.Process(target=echo, args=(other,))  # type: ignore[attr-defined]
        process.start()
        one.send("to and fro")
        assert one.recv(timeout=DEADLOCK) == "to and fro"
        process.kill()
        process.join(DEADLOCK)
        process.close()


def test_our_process_takes_multiprocessings_connection(launched: Callable[..., Any]) -> None:
    one, other = multiprocessing.Pipe()
    with one, other:
        launched(use_stdlib, other)
        assert one.poll(DEADLOCK)
        assert one.recv() == "multiprocessing.connection"


def test_multiprocessings_queue_carries_our_connection(ctx: procflow.Context) -> None:
    queue = ctx.SimpleQueue()
    one, other = Pipe()
    with one, other:
        queue.put(other)
        with queue.get() as copy:
            copy.send("through a queue")
            assert one.recv(timeout=DEADLOCK) == "through a queue"
    queue.close()
    multiprocessing.resource_sharer.stop(timeout=DEADLOCK)  # type: ignore[attr-defined]


def test_wait_mixes_connections_and_the_sentinels_of_processes(launched: Callable[..., Any]) -> None:
    one, other = Pipe()
    with one, other:
        process = launched(send, other, "message")
        ready: set[object] = set()
        while len(ready) < 2:
            found = wait([one, process.sentinel], DEADLOCK)
            assert found
            ready.update(found)
            if one in found and one.poll():
                try:
                    assert one.recv() == "message"
                except EOFError:
                    pass
        assert ready == {one, process.sentinel}


# ---- the end of the other side


def seconds_to_the_end(connection: Connection, since: float) -> float:
    with pytest.raises(EOFError):
        connection.recv(timeout=DEADLOCK)
    return time.monotonic() - since


@pytest.mark.parametrize("siblings", [0, 3])
def test_eof_when_the_child_dies(
    launched: Callable[..., Any], pipe: tuple[Connection, Connection], siblings: int
) -> None:
    receiver, sender = pipe
    child = launched(send_and_stay, sender, "alive")
    for _ in range(siblings):
        launched(stay)  # by fork, they inherit both ends
    assert receiver.recv(timeout=DEADLOCK) == "alive"
    killed = time.monotonic()
    child.kill()
    assert seconds_to_the_end(receiver, killed) < PROMPT * SLACK


def test_eof_when_one_of_many_children_dies_and_each_has_a_pipe(launched: Callable[..., Any]) -> None:
    pipes = [Pipe() for _ in range(4)]
    children = [launched(send_and_stay, theirs, "alive") for _, theirs in pipes]
    for ours, _ in pipes:
        assert ours.recv(timeout=DEADLOCK) == "alive"
    children[2].kill()
    assert wait([ours for ours, _ in pipes], DEADLOCK) == [pipes[2][0]]
    with pytest.raises(EOFError):
        pipes[2][0].recv()
    for ours, theirs in pipes:
        ours.close()
        theirs.close()


def test_eof_in_a_recv_that_has_begun_before_the_child_was_launched(launched: Callable[..., Any]) -> None:
    one, other = Pipe()
    with one, other:
        ended = threading.Event()

        def receive() -> None:
            for _ in one:
                pass
            ended.set()

        thread = threading.Thread(target=receive)
        thread.start()
        launched(send, other, 1, 2, 3)
        assert ended.wait(DEADLOCK)
        thread.join(DEADLOCK)


def test_all_that_a_child_sent_comes_before_the_end(
    launched: Callable[..., Any], pipe: tuple[Connection, Connection]
) -> None:
    receiver, sender = pipe
    child = launched(send, sender, *range(100), bytes(40_000))
    child.join(DEADLOCK)
    assert list(receiver) == [*range(100), bytes(40_000)]


def test_the_end_comes_when_the_last_of_two_children_with_the_same_end_has_ended(
    launched: Callable[..., Any], pipe: tuple[Connection, Connection]
) -> None:
    receiver, sender = pipe
    first, second = launched(send_and_stay, sender, 1), launched(send_and_stay, sender, 2)
    assert {receiver.recv(timeout=DEADLOCK), receiver.recv(timeout=DEADLOCK)} == {1, 2}
    first.kill()
    first.join(DEADLOCK)
    with pytest.raises(TimeoutError):
        receiver.recv(timeout=0.1)
    second.kill()
    with pytest.raises(EOFError):
        receiver.recv(timeout=DEADLOCK)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_grandchild_keeps_the_pipe_open(launched: Callable[..., Any], pipe: tuple[Connection, Connection]) -> None:
    receiver, sender = pipe
    report, their_report = Pipe()
    with report, their_report:
        child = launched(leave_a_grandchild, sender, their_report)
        grandchild = report.recv(timeout=DEADLOCK)
        child.join(DEADLOCK)
        with pytest.raises(TimeoutError):
            receiver.recv(timeout=0.2)
        report.send("send now")
        assert receiver.recv(timeout=DEADLOCK) == "from the grandchild"
        os.kill(grandchild, signal.SIGKILL)
        with pytest.raises(EOFError):
            receiver.recv(timeout=DEADLOCK)


def test_a_child_killed_in_mid_message_is_a_truncated_message(
    launched: Callable[..., Any], pipe: tuple[Connection, Connection]
) -> None:
    receiver, sender = pipe
    launched(die_in_mid_message, sender)
    with pytest.raises(TruncatedMessage, match="18 of 1000 bytes"):
        receiver.recv(timeout=DEADLOCK)
    with pytest.raises(EOFError):
        receiver.recv(timeout=DEADLOCK)


@pytest.mark.parametrize("size", [100, 10_000_000])
def test_send_to_a_child_that_has_died_is_a_broken_pipe(
    launched: Callable[..., Any], pipe: tuple[Connection, Connection], size: int
) -> None:
    receiver, sender = pipe
    child = launched(stay, receiver)
    child.kill()
    child.join(DEADLOCK)
    died = time.monotonic()
    with pytest.raises(BrokenPipeError):
        sender.send_bytes(bytes(size))
    assert time.monotonic() - died < PROMPT * SLACK


def test_a_send_that_waits_for_a_child_ends_when_the_child_dies(
    launched: Callable[..., Any], pipe: tuple[Connection, Connection]
) -> None:
    receiver, sender = pipe
    child = launched(receive_once, receiver)
    with pytest.raises(BrokenPipeError):
        while True:
            sender.send_bytes(pickle.dumps(bytes(100_000)))
    child.join(DEADLOCK)
    assert child.exitcode == 0


def test_the_end_comes_also_with_multiprocessings_own_processes(method: str) -> None:
    theirs = multiprocessing.get_context(method)
    one, other = Pipe()
    with one, other:
        process = start(theirs, send, other, "from their process")
        assert list(one) == ["from their process"]
        process.join(DEADLOCK)
        process.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_copy_of_a_connection_is_not_locked_by_the_parents_threads() -> None:
    one, other = Pipe()
    with one, other:
        thread = threading.Thread(target=one.recv)
        thread.start()
        wait_until(lambda: one.endpoint._receiving._busy)
        pid = os.fork()
        if pid == 0:
            signal.alarm(int(DEADLOCK))
            try:
                one.recv(timeout=0)
            except TimeoutError as error:
                os._exit(0 if "another thread" not in str(error) else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        other.send("end")
        thread.join(DEADLOCK)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_close_unpassed_ends_lets_a_forked_child_see_the_end_of_its_parent() -> None:
    one, other = Pipe()
    report, their_report = Pipe()
    with report:
        pid = os.fork()
        if pid == 0:
            signal.alarm(int(DEADLOCK))
            procflow.connection.close_unpassed_ends([other, their_report])
            report_the_end(other, their_report)
            os._exit(0)
        other.close()
        their_report.close()
        one.close()
        assert report.recv(timeout=DEADLOCK) == "end of file"
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
