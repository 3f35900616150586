"""Reads and writes that keep the interpreter do what those of `os` do."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from procflow.wire.holding import holding_calls

if TYPE_CHECKING:
    from procflow.wire.holding import Read, Write

MOST = 4096


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            pass


@pytest.fixture(params=["held", "plain"])
def calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Read, Write]:
    if request.param == "plain":
        monkeypatch.setitem(sys.modules, "ctypes", None)
    found = holding_calls(MOST)
    assert (found == (os.read, os.write)) == (request.param == "plain")
    return found


def test_what_is_written_is_read(pipe: tuple[int, int], calls: tuple[Read, Write]) -> None:
    read, write = calls
    data = bytes(range(256)) * 8
    assert write(pipe[1], data) == len(data)
    assert read(pipe[0], 100) == data[:100]
    assert read(pipe[0], MOST) == data[100:]


def test_a_read_of_an_empty_pipe_says_so(pipe: tuple[int, int], calls: tuple[Read, Write]) -> None:
    with pytest.raises(BlockingIOError):
        calls[0](pipe[0], MOST)


def test_a_read_at_the_end_is_empty(pipe: tuple[int, int], calls: tuple[Read, Write]) -> None:
    os.close(pipe[1])
    assert calls[0](pipe[0], MOST) == b""


def test_a_write_into_a_full_pipe_says_so(pipe: tuple[int, int], calls: tuple[Read, Write]) -> None:
    with pytest.raises(BlockingIOError):
        while True:
            calls[1](pipe[1], bytes(MOST))


def test_a_write_that_nobody_will_read_says_so(pipe: tuple[int, int], calls: tuple[Read, Write]) -> None:
    os.close(pipe[0])
    with pytest.raises(BrokenPipeError):
        calls[1](pipe[1], b"x")


def test_a_descriptor_that_is_closed_is_refused(calls: tuple[Read, Write]) -> None:
    with pytest.raises(OSError, match="ad file descriptor"):
        calls[0](-1, MOST)
