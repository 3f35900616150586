"""Task channels: packets to one worker, whole or not at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procflow.wire import channel as module
from procflow.wire.channel import PacketChannel, StreamChannel, TaskChannel, open_channel, packet_reader, stream_reader
from procflow.wire.packets import PACKET_MAX

READERS: dict[type[TaskChannel], Callable[[int], Callable[[], bytes]]] = {
    PacketChannel: packet_reader,
    StreamChannel: stream_reader,
}

pytestmark = pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="packet pipes are Linux's")


class Pair:
    """Both ends of a channel."""

    def __init__(self, kind: type[TaskChannel]) -> None:
        self.channel = kind()
        self.read = READERS[kind](self.channel.reader)
        self.is_open = True

    def close_pool(self) -> None:
        if self.is_open:
            self.channel.close()
        self.is_open = False


def opened(kind: type[TaskChannel]) -> Iterator[Pair]:
    pair = Pair(kind)
    yield pair
    pair.close_pool()
    os.close(pair.channel.reader)


@pytest.fixture(params=list(READERS))
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    yield from opened(request.param)


@pytest.fixture
def packets() -> Iterator[Pair]:
    yield from opened(PacketChannel)


@pytest.mark.parametrize("nbytes", [1, 100, PACKET_MAX - 1, PACKET_MAX])
def test_a_packet_arrives_as_it_was_sent(pair: Pair, nbytes: int) -> None:
    assert pair.channel.send(bytes(range(256))[: min(nbytes, 256)] * max(1, nbytes // 256))
    assert pair.read() == bytes(range(256))[: min(nbytes, 256)] * max(1, nbytes // 256)


def test_each_read_gives_one_packet(pair: Pair) -> None:
    for text in (b"a", b"bb", b"ccc"):
        assert pair.channel.send(text)
    assert [pair.read(), pair.read(), pair.read()] == [b"a", b"bb", b"ccc"]


def test_a_window_of_the_largest_packets_fits(pair: Pair) -> None:
    assert all(pair.channel.send(b"x" * PACKET_MAX) for _ in range(4))


def test_a_full_pipe_takes_nothing_and_does_not_block(packets: Pair) -> None:
    sent = 0
    while packets.channel.send(b"x" * PACKET_MAX):
        sent += 1
    assert sent >= 2
    assert [len(packets.read()) for _ in range(sent)] == [PACKET_MAX] * sent
    assert packets.channel.send(b"again")


def test_the_reader_sees_the_end_after_the_last_packet(pair: Pair) -> None:
    pair.channel.send(b"last")
    pair.close_pool()
    assert [pair.read(), pair.read()] == [b"last", b""]


def test_a_reader_waits_for_a_packet(pair: Pair) -> None:
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(pair.read()))
    reader.start()
    pair.channel.send(b"late")
    reader.join(30)
    assert found == [b"late"]


def test_the_oldest_unread_packet_can_be_taken_back(packets: Pair) -> None:
    for text in (b"a", b"b", b"c"):
        packets.channel.send(text)
    assert packets.read() == b"a"
    assert packets.channel.take_back() == b"b"
    assert packets.read() == b"c"


def test_there_is_nothing_to_take_back_when_all_was_read(packets: Pair) -> None:
    assert packets.channel.take_back() is None
    packets.channel.send(b"a")
    packets.read()
    assert packets.channel.take_back() is None


def test_to_look_for_a_packet_does_not_make_the_worker_s_reads_fail(packets: Pair) -> None:
    assert packets.channel.take_back() is None
    assert os.get_blocking(packets.channel.reader)


def test_a_plain_pipe_gives_nothing_back() -> None:
    for pair in opened(StreamChannel):
        pair.channel.send(b"a")
        assert pair.channel.take_back() is None
        assert pair.read() == b"a"


def test_half_a_packet_at_the_end_of_a_plain_pipe_is_the_end() -> None:
    for pair in opened(StreamChannel):
        os.write(pair.channel.writer, b"\x05\x00\x00\x00ab")
        pair.close_pool()
        assert pair.read() == b""


def test_a_packet_may_arrive_in_pieces() -> None:
    for pair in opened(StreamChannel):
        writer = threading.Thread(
            target=lambda p=pair: [os.write(p.channel.writer, bytes([b])) for b in b"\x03\x00\x00\x00abc"]
        )
        writer.start()
        assert pair.read() == b"abc"
        writer.join()


@pytest.mark.parametrize("kind", list(READERS))
def test_a_worker_that_is_gone_swallows_what_is_sent(kind: type[TaskChannel]) -> None:
    made = kind()
    os.close(made.reader)
    try:
        assert made.send(b"for nobody")
    finally:
        made.close()


@pytest.mark.parametrize("kind", list(READERS))
def test_no_descriptor_is_inherited_and_none_is_left(kind: type[TaskChannel]) -> None:
    made = kind()
    fds = [made.reader, *made.fds()]
    assert not any(os.get_inheritable(fd) for fd in fds)
    os.close(made.reader)
    made.close()
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def chosen(*, portable: bool) -> tuple[type[TaskChannel], bool]:
    made = open_channel(portable=portable)
    os.close(made.reader)
    made.close()
    return type(made), made.takes_back


def test_the_best_channel_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(portable=False) == (PacketChannel, True)
    assert chosen(portable=True) == (StreamChannel, False)
    monkeypatch.setattr(module.sys, "platform", "plan9")
    assert chosen(portable=False) == (StreamChannel, False)


def test_without_proc_there_is_a_plain_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_proc(*_: object) -> int:
        raise FileNotFoundError("/proc")

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(module.os, "open", no_proc)
    made = open_channel()
    monkeypatch.undo()
    assert isinstance(made, StreamChannel)
    os.close(made.reader)
    made.close()
    assert len(os.listdir("/proc/self/fd")) == before


@given(
    st.lists(st.tuples(st.sampled_from(["send", "read", "take_back"]), st.binary(min_size=1, max_size=50)), max_size=40)
)
def test_a_packet_is_read_or_taken_back_once_and_in_order(steps: list[tuple[str, bytes]]) -> None:
    made, unread = PacketChannel(), list[bytes]()
    read = packet_reader(made.reader)
    try:
        for act, text in steps:
            if act == "send":
                if made.send(text):
                    unread.append(text)
            elif act == "take_back":
                assert made.take_back() == (unread.pop(0) if unread else None)
            elif unread:
                assert read() == unread.pop(0)
    finally:
        os.close(made.reader)
        made.close()
