"""Big messages over a duplex Pipe go in a file of their own: whole, writable, the receiver's; and nothing is left."""

from __future__ import annotations

import array
import os
import pickle
import resource
import select
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procflow import Connection, Pipe, ProtocolError, TimeoutError
from procflow.wire.enclosure import Enclosure
from procflow.wire.pieces import ENCLOSED_LEAST
from procflow.wire.stream import APART, ENCLOSED, PADDING
from tests.support import DEADLOCK, wait_until

np = pytest.importorskip("numpy")

Pair = tuple[Connection[Any, Any], Connection[Any, Any]]


@pytest.fixture(params=["mapped", "portable"], autouse=True)
def variant(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PROCFLOW_PORTABLE", "1" if request.param == "portable" else "")
    return str(request.param)


@pytest.fixture
def pair() -> Iterator[Pair]:
    before = descriptors()
    one, other = Pipe()
    with one, other:
        yield one, other
    wait_until(lambda: descriptors() <= before, "the closing of all descriptors")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def big(n: int = 0) -> Any:
    return np.full(ENCLOSED_LEAST // 8 + 1, n)


def send(sender: Connection[Any, Any], *objects: object) -> threading.Thread:
    """Send from a thread: what is big may have to wait for its receiver."""
    thread = threading.Thread(target=lambda: [sender.send(obj) for obj in objects])
    thread.start()
    return thread


def test_what_is_big_comes_whole_and_writable(pair: Pair) -> None:
    one, other = pair
    sent = {"array": big(7), "bytearray": bytearray(b"x" * ENCLOSED_LEAST), "bytes": b"y" * ENCLOSED_LEAST, "small": 1}
    sending = send(one, sent, sent)
    for _ in range(2):
        got = other.recv(DEADLOCK)
        assert (got["array"] == sent["array"]).all()
        assert {key: got[key] for key in got if key != "array"} == {key: sent[key] for key in sent if key != "array"}
        got["array"][0] = 1
        got["bytearray"][0] = 1
    sending.join()
    assert sent["array"][0] == 7


def test_what_is_small_is_framed_as_multiprocessing_frames_it(pair: Pair) -> None:
    one, other = pair
    one.send([1, 2])
    (size,) = struct.unpack("!i", os.read(other.fileno(), 4))
    assert pickle.loads(os.read(other.fileno(), size)) == [1, 2]


class Telling:
    """Tells when it is unpickled."""

    def __init__(self) -> None:
        self.data = big()

    def __reduce__(self) -> Any:
        return _tell, (self.data,)


told: list[int] = []


def _tell(data: Any) -> Any:
    told.append(1)
    return data


def test_as_bytes_it_is_one_pickle_and_is_not_unpickled(pair: Pair) -> None:
    one, other = pair
    told.clear()
    readonly = pickle.PickleBuffer(b"r" * ENCLOSED_LEAST)
    sending = send(one, [Telling(), bytearray(b"w" * ENCLOSED_LEAST), readonly])
    data = other.recv_bytes()
    sending.join()
    assert told == []
    first, second, third = pickle.loads(data)
    assert (first == big()).all()
    assert second == bytearray(b"w" * ENCLOSED_LEAST)
    assert third == b"r" * ENCLOSED_LEAST
    assert type(third) is bytes


def test_it_can_be_received_into_a_buffer(pair: Pair) -> None:
    one, other = pair
    sending = send(one, big(3))
    room = bytearray(2 * ENCLOSED_LEAST)
    nbytes = other.recv_bytes_into(room)
    sending.join()
    assert (pickle.loads(bytes(room[:nbytes])) == big(3)).all()


def test_arrays_that_are_kept_hold_no_descriptors(pair: Pair, variant: str) -> None:
    if variant == "portable":
        pytest.skip("a mapping that Python makes holds one")
    one, other = pair
    before = descriptors()
    sending = send(one, *[big(n) for n in range(20)])
    kept = [other.recv(DEADLOCK) for _ in range(20)]
    sending.join()
    assert descriptors() == before
    assert [int(held[0]) for held in kept] == list(range(20))


def test_a_fork_does_not_see_what_its_parent_writes_nor_the_reverse(pair: Pair) -> None:
    one, other = pair
    sending = send(one, big(1))
    got = other.recv(DEADLOCK)
    sending.join()
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        got[0] = 2
        os.write(writer, b"x")
        os._exit(0)
    assert os.read(reader, 1) == b"x"
    os.waitpid(child, 0)
    os.close(reader)
    os.close(writer)
    assert got[0] == 1


def test_who_sends_faster_than_the_other_side_receives_has_to_wait(pair: Pair) -> None:
    one, other = pair
    sent: list[int] = []

    def flood() -> None:
        for n in range(50):
            one.send(big(n))
            sent.append(n)

    thread = threading.Thread(target=flood)
    thread.start()
    wait_until(lambda: not select.select([], [other_end(one)], [], 0)[1], "the buffer to be full")
    assert len(sent) < 10
    assert [int(other.recv(DEADLOCK)[0]) for _ in range(50)] == list(range(50))
    thread.join()


def other_end(connection: Connection[Any, Any]) -> int:
    return connection.fileno()


def test_threads_that_send_at_once_do_not_mix_their_messages(pair: Pair) -> None:
    one, other = pair
    threads = [send(one, *[big(n) if k % 2 else n for k in range(10)]) for n in range(6)]
    got = [other.recv(DEADLOCK) for _ in range(60)]
    for thread in threads:
        thread.join()
    assert sorted(int(item if isinstance(item, int) else item[0]) for item in got) == sorted(list(range(6)) * 10)
    assert all(isinstance(item, int) or (item == item[0]).all() for item in got)


def test_a_limit_on_files_sends_it_the_plain_way(pair: Pair) -> None:
    one, other = pair
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        sending = send(one, big(5))
        got = other.recv(DEADLOCK)
        sending.join()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (got == big(5)).all()


def test_what_nobody_receives_is_gone_with_the_connection(pair: Pair) -> None:
    one, other = pair
    one.send(big())
    other.poll(DEADLOCK)
    other.close()  # `pair` counts the descriptors
    with pytest.raises(OSError):
        for _ in range(10):
            one.send(big())


# -- by hand, byte by byte --


def file_of(data: bytes) -> int:
    fd = os.memfd_create("test")
    os.write(fd, data)
    return fd


def send_raw(sender: Connection[Any, Any], data: bytes, fd: int | None = None) -> None:
    with socket.socket(fileno=os.dup(sender.fileno())) as raw:
        extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd is not None else []
        raw.sendmsg([data], extra)
    if fd is not None:
        os.close(fd)


def header(nbytes: int, padding: int = 100) -> bytes:
    return ENCLOSED.pack(APART, nbytes, padding)


def test_a_message_that_comes_in_parts_is_continued(pair: Pair) -> None:
    one, other = pair
    head = header(100)
    for part in (head[:2], head[2:9], head[9:]):
        send_raw(one, part)
        with pytest.raises(TimeoutError):
            other.recv(timeout=0)
    payload = pickle.dumps("there")
    table = struct.pack("<IQ", 1, len(payload))
    content = table.ljust(64, b"\0") + payload
    send_raw(one, b"p" * 30, file_of(content.ljust(100, b"\0")))
    with pytest.raises(TimeoutError, match="is kept"):
        other.recv(timeout=0)
    send_raw(one, b"p" * 70)
    assert other.recv(timeout=0) == "there"


def test_a_message_whose_descriptor_was_lost_is_an_error_and_the_next_one_comes(pair: Pair) -> None:
    one, other = pair
    send_raw(one, header(1000) + b"p" * 100)
    one.send("next")
    with pytest.raises(OSError, match="descriptor was lost"):
        other.recv(timeout=DEADLOCK)
    assert other.recv(timeout=DEADLOCK) == "next"


@pytest.mark.parametrize(
    ("content", "claimed"),
    [
        (b"short", 10**9),
        (bytes(1000), 1000),
        (struct.pack("<IQ", 1, 2**40).ljust(1000, b"\0"), 1000),
        (struct.pack("<I", 2**31).ljust(1000, b"\0"), 1000),
        (b"\xff" * 1000, 1000),
    ],
)
def test_a_file_that_is_not_what_it_says_is_an_error(pair: Pair, content: bytes, claimed: int) -> None:
    one, other = pair
    send_raw(one, header(claimed))
    send_raw(one, b"p" * 100, file_of(content))
    with pytest.raises(ProtocolError):
        other.recv(timeout=DEADLOCK)


@pytest.mark.parametrize("head", [header(0), header(2**50), header(1000, 0), header(1000, 2**30)])
def test_a_header_that_is_garbage_ends_reading(pair: Pair, head: bytes) -> None:
    one, other = pair
    send_raw(one, head)
    with pytest.raises(ProtocolError, match="garbage"):
        other.recv(timeout=DEADLOCK)


def test_a_message_that_was_taken_in_half_is_dropped_with_the_connection(pair: Pair) -> None:
    one, other = pair
    send_raw(one, header(1000))
    send_raw(one, b"p" * 10, file_of(bytes(1000)))
    with pytest.raises(TimeoutError):
        other.recv(timeout=0)


def test_an_enclosure_that_nobody_opens_closes_its_file() -> None:
    before = descriptors()
    Enclosure(file_of(b"x"), 1).drop()
    assert descriptors() == before


@given(
    st.lists(st.tuples(st.sampled_from(["array", "bytes", "plain"]), st.integers(0, 2 * ENCLOSED_LEAST)), max_size=6)
)
def test_messages_of_any_size_come_in_order(messages: list[tuple[str, int]]) -> None:
    made: list[Any] = [
        np.arange(size, dtype="u1") if kind == "array" else bytes(size) if kind == "bytes" else size
        for kind, size in messages
    ]
    one, other = Pipe()
    with one, other:
        sending = send(one, *made)
        for message in made:
            got = other.recv(DEADLOCK)
            assert type(got) is type(message)
            assert np.array_equal(got, message) if isinstance(message, np.ndarray) else got == message
        sending.join()


def test_the_padding_is_what_the_header_says() -> None:
    assert len(PADDING) >= 2**16  # two of them fill a socket's buffer: see the test of who has to wait
