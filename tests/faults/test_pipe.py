"""Process and pipe: a peer that is gone is noticed, though this process holds a copy of the peer's end."""

from __future__ import annotations

import array
import fcntl
import os
import pickle
import signal
import struct
import termios
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import procflow
from tests.faults import tasks
from tests.support import DEADLOCK, wait_until

SOON = 5.0  # seconds: the promise is 0.1 on a quiet machine; without the notice it would be for ever


def ended_by(end: Callable[[], object], connection: Any) -> None:
    connection.send("here")
    end()


@pytest.mark.parametrize("end", [tasks.sigkill, tasks.os_exit, int])
@pytest.mark.parametrize("duplex", [True, False])
def test_recv_ends_when_the_peer_process_is_gone(
    end: Callable[[], object], duplex: bool, ctx: procflow.Context
) -> None:
    ours, theirs = ctx.Pipe(duplex)
    sibling_ends = ctx.Pipe()
    with ours, theirs, sibling_ends[0], sibling_ends[1]:
        sibling = ctx.Process(target=wait_for_end, args=(sibling_ends[1],))
        sibling.start()
        child = ctx.Process(target=ended_by, args=(end, theirs))
        child.start()
        assert ours.recv() == "here"
        began = time.monotonic()
        with pytest.raises(EOFError):
            ours.recv()
        assert time.monotonic() - began < SOON
        sibling.kill()
        for process in (child, sibling):
            process.join()


def wait_for_end(connection: Any) -> None:
    connection.recv()


def test_send_to_a_peer_that_is_gone_raises(ctx: procflow.Context) -> None:
    ours, theirs = ctx.Pipe()
    with ours, theirs:
        child = ctx.Process(target=ended_by, args=(tasks.sigkill, theirs))
        child.start()
        assert ours.recv() == "here"
        child.join()
        with pytest.raises(OSError):
            for _ in range(100):
                ours.send(b"x" * 100_000)


def send_half_a_message(connection: Any) -> None:
    os.write(connection.fileno(), struct.pack("!i", 1000) + b"half")
    tasks.sigkill()


def test_a_peer_killed_in_the_middle_of_a_message_is_the_end(ctx: procflow.Context) -> None:
    ours, theirs = ctx.Pipe()
    with ours, theirs:
        child = ctx.Process(target=send_half_a_message, args=(theirs,))
        child.start()
        with pytest.raises((EOFError, OSError)):
            ours.recv()
        child.join()


def flood(connection: Any) -> None:
    while True:
        connection.send(pickle.PickleBuffer(b"x" * 1_000_000))


@pytest.mark.parametrize("portable", ["", "1"])
def test_a_peer_killed_while_it_sends_what_is_big_is_the_end_and_leaves_no_descriptor(
    ctx: procflow.Context, portable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROCFLOW_PORTABLE", portable)
    ours, theirs = ctx.Pipe()
    with ours, theirs:
        child = ctx.Process(target=flood, args=(theirs,))
        child.start()
        theirs.close()
        wait_until(lambda: _unread(ours) > 150_000, "a second message, which does not fit in whole, to be begun")
        child.kill()
        child.join()
        before = len(os.listdir("/proc/self/fd"))
        whole = 0
        with pytest.raises((EOFError, OSError)):
            while ours.recv(DEADLOCK) == b"x" * 1_000_000:
                whole += 1
        assert 1 <= whole < 10
        assert len(os.listdir("/proc/self/fd")) == before


def _unread(connection: Any) -> int:
    found = array.array("i", [0])
    fcntl.ioctl(connection.fileno(), termios.FIONREAD, found)
    return found[0]


@pytest.mark.parametrize("size", [0, 1, 100_000_000])
def test_messages_of_any_size_cross(size: int, ctx: procflow.Context) -> None:
    ours, theirs = ctx.Pipe()
    with ours, theirs:
        child = ctx.Process(target=send_back, args=(theirs,))
        child.start()
        ours.send_bytes(b"x" * size)
        assert ours.recv_bytes() == b"x" * size
        child.join()


def send_back(connection: Any) -> None:
    connection.send_bytes(connection.recv_bytes())


def test_threads_that_send_at_once_do_not_mix_their_messages(ctx: procflow.Context) -> None:
    ours, theirs = ctx.Pipe(False)
    with ours, theirs:
        messages = [bytes([n]) * 50_000 for n in range(8)]
        threads = [threading.Thread(target=_send_often, args=(theirs, message)) for message in messages]
        for thread in threads:
            thread.start()
        got = [ours.recv() for _ in range(8 * 20)]
        for thread in threads:
            thread.join(DEADLOCK)
        assert sorted(got) == sorted(messages * 20)


def _send_often(connection: Any, message: bytes) -> None:
    for _ in range(20):
        connection.send(message)


def test_a_child_that_ignores_sigterm_is_stopped_by_kill(ctx: procflow.Context) -> None:
    ours, theirs = ctx.Pipe()
    with ours, theirs:
        child = ctx.Process(target=ignore_sigterm, args=(theirs,))
        child.start()
        assert ours.recv() == "ignored"
        child.terminate()
        child.kill()
        child.join(DEADLOCK)
        assert child.exitcode == -signal.SIGKILL


def ignore_sigterm(connection: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection.send("ignored")
    connection.recv()
