"""Connection, Pipe and wait within one process, and the pure rule for the end of the other side."""

from __future__ import annotations

import array
import errno
import itertools
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import BufferTooShort
from multiprocessing.connection import Connection as StdlibConnection
from multiprocessing.connection import Pipe as stdlib_pipe

import pytest

from procflow.connection import Connection, Pipe, connections_in, wait
from procflow.errors import (
    PeerReset,
    PicklingError,
    ProcflowError,
    ProtocolError,
    TimeoutError,
    TruncatedMessage,
    UnpicklingError,
)
from procflow.wire import peers
from procflow.wire.peers import State, decide
from tests.support import DEADLOCK, open_fds, wait_until

Pair = tuple[Connection, Connection]


@pytest.fixture(params=[True, False], ids=["duplex", "one-way"])
def pipe(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """(receiver, sender)"""
    receiver, sender = Pipe(request.param)
    with receiver, sender:
        yield receiver, sender


@pytest.fixture
def duplex() -> Iterator[Pair]:
    one, other = Pipe()
    with one, other:
        yield one, other


def raw_write(connection: Connection, data: bytes) -> None:
    os.write(connection.fileno(), data)


# ---- what crosses


@pytest.mark.parametrize("obj", [None, 0, "text", {"a": [1, (2.5, b"x")]}, b"", bytes(300_000), list(range(100_000))])
def test_an_object_arrives_as_it_was(pipe: Pair, obj: object) -> None:
    receiver, sender = pipe
    with ThreadPoolExecutor(1) as threads:
        sent = threads.submit(sender.send, obj)
        assert receiver.recv() == obj
        sent.result(DEADLOCK)


@pytest.mark.parametrize("size", [0, 1, 16384, 16385, 2**18 - 1, 2**18, 2**18 + 1, 5_000_000])
def test_bytes_of_any_size_arrive_whole(pipe: Pair, size: int) -> None:
    receiver, sender = pipe
    data = os.urandom(size)
    with ThreadPoolExecutor(1) as threads:
        sent = threads.submit(sender.send_bytes, data)
        assert receiver.recv_bytes() == data
        sent.result(DEADLOCK)


def test_lambdas_and_closures_travel_by_value(duplex: Pair) -> None:
    one, other = duplex
    offset = 40
    one.send(lambda x: x + offset)
    assert other.recv()(2) == 42


def test_send_bytes_takes_part_of_a_buffer(duplex: Pair) -> None:
    one, other = duplex
    for arguments, expected in [((5,), b"fgh"), ((2, 3), b"cde"), ((8,), b""), ((8, 0), b""), ((0, None), b"abcdefgh")]:
        one.send_bytes(b"abcdefgh", *arguments)
        assert other.recv_bytes() == expected


@pytest.mark.parametrize("arguments", [(9,), (6, 3), (8, 1), (-1,), (4, -1)])
def test_send_bytes_refuses_a_part_outside_of_the_buffer(duplex: Pair, arguments: tuple[int, ...]) -> None:
    with pytest.raises(ValueError):
        duplex[0].send_bytes(b"abcdefgh", *arguments)


def test_buffers_of_any_item_and_shape_are_sent_as_their_bytes(duplex: Pair) -> None:
    numpy = pytest.importorskip("numpy")
    one, other = duplex
    matrix = numpy.arange(12, dtype=numpy.uint8).reshape(3, 4)
    for buffer in (matrix, matrix.astype("f8"), numpy.zeros((0, 3)), array.array("i", [1, 2, 3]), bytearray(b"abc")):
        one.send_bytes(buffer)
        assert other.recv_bytes() == bytes(memoryview(buffer))


def test_recv_bytes_into_fills_a_buffer_at_an_offset_in_bytes(duplex: Pair) -> None:
    one, other = duplex
    numbers = array.array("i", [1, 2, 3, 4])
    target = array.array("i", [0] * 10)
    one.send_bytes(numbers)
    assert other.recv_bytes_into(target, 3 * target.itemsize) == 4 * target.itemsize
    assert list(target) == [0, 0, 0, 1, 2, 3, 4, 0, 0, 0]


def test_recv_bytes_into_receives_a_big_message_in_place(pipe: Pair) -> None:
    receiver, sender = pipe
    data = os.urandom(3_000_000)
    target = bytearray(len(data) + 2)
    with ThreadPoolExecutor(1) as threads:
        sent = threads.submit(sender.send_bytes, data)
        assert receiver.recv_bytes_into(target, 1) == len(data)
        sent.result(DEADLOCK)
    assert target[1:-1] == data


@pytest.mark.parametrize("size", [41, 20_000])
def test_a_message_that_does_not_fit_comes_with_the_error(duplex: Pair, size: int) -> None:
    one, other = duplex
    one.send_bytes(b"x" * size)
    one.send_bytes(b"next")
    with pytest.raises(BufferTooShort) as caught:
        other.recv_bytes_into(bytearray(40))
    assert caught.value.args == (b"x" * size,)
    assert other.recv_bytes() == b"next"


def test_recv_bytes_into_refuses_what_it_can_not_fill(duplex: Pair) -> None:
    one, other = duplex
    one.send_bytes(b"kept")
    with pytest.raises(ValueError, match="negative offset"):
        other.recv_bytes_into(bytearray(4), -1)
    with pytest.raises(ValueError, match="offset too large"):
        other.recv_bytes_into(bytearray(4), 5)
    with pytest.raises(TypeError):
        other.recv_bytes_into(b"read-only")  # type: ignore[arg-type]
    assert other.recv_bytes() == b"kept"


def test_a_connection_talks_to_multiprocessings_own() -> None:
    for ours_first in (True, False):
        left, right = socket.socketpair()
        ours, theirs = Connection(left.detach()), StdlibConnection(right.detach())
        with ours, theirs:
            one, other = (ours, theirs) if ours_first else (theirs, ours)
            with ThreadPoolExecutor(1) as threads:
                for obj in ("text", bytes(1_000_000), {"k": [1]}):
                    sent = threads.submit(one.send, obj)
                    assert other.recv() == obj
                    sent.result(DEADLOCK)
                one.send_bytes(b"")
                assert other.recv_bytes() == b""


@pytest.mark.slow
def test_a_message_of_more_than_two_gibibytes_has_the_long_header() -> None:
    left, right = os.pipe()
    with Connection(left, writable=False) as receiver, os.fdopen(right, "wb", 0) as raw:
        size = 2**31 + 5
        raw.write(struct.pack("!iQ", -1, size) + b"begin")
        with pytest.raises(TimeoutError):
            receiver.recv_bytes(timeout=0)
        raw.close()
        with pytest.raises(TruncatedMessage, match=f"5 of {size} bytes"):
            receiver.recv_bytes()


# ---- directions, closing, and wrong arguments


def test_each_end_of_a_one_way_pipe_has_one_direction() -> None:
    reader, writer = Pipe(duplex=False)
    with reader, writer:
        assert (reader.readable, reader.writable) == (True, False)
        assert (writer.readable, writer.writable) == (False, True)
        for wrong in (writer.recv, writer.poll, writer.recv_bytes, lambda: writer.recv_bytes_into(bytearray(1))):
            with pytest.raises(OSError, match="write-only"):
                wrong()
        for wrong in (lambda: reader.send(1), lambda: reader.send_bytes(b"x")):
            with pytest.raises(OSError, match="read-only"):
                wrong()


def test_a_closed_connection_refuses_every_use(pipe: Pair) -> None:
    for connection in pipe:
        with connection:
            assert not connection.closed
        assert connection.closed
        connection.close()
        uses: list[Callable[[], object]] = [
            connection.recv,
            connection.recv_bytes,
            connection.poll,
            connection.fileno,
            lambda c=connection: c.send(1),
            lambda c=connection: c.send_bytes(b"x"),
            lambda c=connection: c.recv_bytes_into(bytearray(1)),
            lambda c=connection: wait([c], 0),
        ]
        for use in uses:
            with pytest.raises(OSError, match="handle is closed"):
                use()


def test_a_dropped_connection_closes_its_descriptor() -> None:
    receiver, sender = Pipe(duplex=False)
    del sender
    with receiver, pytest.raises(EOFError):
        receiver.recv()


def test_the_constructor_refuses_what_multiprocessings_refuses() -> None:
    with pytest.raises(ValueError, match="invalid handle"):
        Connection(-1)
    with pytest.raises(ValueError, match="at least one of"):
        Connection(0, readable=False, writable=False)
    with pytest.raises(AttributeError):
        Connection("0")  # type: ignore[arg-type]


def test_a_connection_tells_its_state_in_repr(pipe: Pair) -> None:
    receiver, _ = pipe
    assert f"fd={receiver.fileno()}, readable" in repr(receiver)
    receiver.close()
    assert "closed" in repr(receiver)


# ---- the end


def test_recv_ends_when_the_other_end_is_closed_and_all_is_received(pipe: Pair) -> None:
    receiver, sender = pipe
    sender.send(1)
    sender.close()
    assert receiver.poll()
    assert receiver.recv() == 1
    for _ in range(2):
        assert receiver.poll()
        with pytest.raises(EOFError):
            receiver.recv()


def test_iteration_yields_until_the_other_end_is_closed(pipe: Pair) -> None:
    receiver, sender = pipe
    for number in range(5):
        sender.send(number)
    sender.close()
    assert list(receiver) == [0, 1, 2, 3, 4]


def test_send_to_a_closed_end_is_a_broken_pipe(pipe: Pair) -> None:
    receiver, sender = pipe
    receiver.close()
    for size in (1, 1_000_000):
        with pytest.raises(BrokenPipeError):
            sender.send_bytes(bytes(size))


def test_an_end_closed_with_unread_messages_is_both_eof_and_reset(duplex: Pair) -> None:
    one, other = duplex
    one.send("unread")
    other.send("last")
    other.close()
    assert one.recv() == "last"
    with pytest.raises(PeerReset) as caught:
        one.recv()
    assert isinstance(caught.value, EOFError)
    assert isinstance(caught.value, ConnectionResetError)
    assert caught.value.errno == errno.ECONNRESET


@pytest.mark.parametrize("part", [b"\0", b"\0\0\0", b"\0\0\0\x09", b"\0\0\0\x09abc", b"\xff\xff\xff\xff\0\0"])
def test_a_message_cut_off_in_the_middle_is_an_error_of_its_own(pipe: Pair, part: bytes) -> None:
    receiver, sender = pipe
    raw_write(sender, part)
    sender.close()
    with pytest.raises(TruncatedMessage, match="got end of file during message") as caught:
        receiver.recv()
    assert isinstance(caught.value, EOFError)
    assert isinstance(caught.value, OSError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_iteration_does_not_swallow_a_message_cut_off_in_the_middle(pipe: Pair) -> None:
    receiver, sender = pipe
    sender.send(1)
    raw_write(sender, b"\0\0\0\x09abc")
    sender.close()
    received = iter(receiver)
    assert next(received) == 1
    with pytest.raises(TruncatedMessage):
        next(received)


# ---- garbage


@pytest.mark.parametrize("head", [b"\xff\xff\xff\xfe", b"\x80\0\0\0", b"\xff\xff\xff\xff" + bytes(8), b"\xff" * 12])
def test_garbage_is_a_clear_error_and_ends_reading(pipe: Pair, head: bytes) -> None:
    receiver, sender = pipe
    raw_write(sender, head)
    with pytest.raises(ProtocolError, match="garbage") as caught:
        receiver.recv()
    assert isinstance(caught.value, ProcflowError)
    assert isinstance(caught.value, OSError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(OSError):
        receiver.recv()


def test_a_header_that_claims_a_terabyte_allocates_nothing(pipe: Pair) -> None:
    receiver, sender = pipe
    raw_write(sender, struct.pack("!iQ", -1, 2**40) + b"some bytes")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TimeoutError):
        receiver.recv(timeout=0)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024  # KiB
    sender.close()
    with pytest.raises(TruncatedMessage, match="10 of"):
        receiver.recv()


@pytest.mark.parametrize("payload", [b"", b"no pickle", b"\x80\x05."])
def test_a_whole_message_that_is_no_pickle_leaves_the_next_one_readable(duplex: Pair, payload: bytes) -> None:
    one, other = duplex
    one.send_bytes(payload)
    one.send("next")
    with pytest.raises(UnpicklingError, match="no pickle"):
        other.recv()
    assert other.recv() == "next"


def test_a_message_longer_than_maxlength_ends_reading_on_a_duplex_end(duplex: Pair) -> None:
    one, other = duplex
    one.send_bytes(b"12345")
    with pytest.raises(OSError, match="bad message length"):
        other.recv_bytes(4)
    assert not other.readable
    assert other.writable
    assert not other.closed
    with pytest.raises(OSError):
        other.recv_bytes()
    other.send_bytes(b"still")
    assert one.recv_bytes(5) == b"still"


def test_a_message_longer_than_maxlength_closes_a_one_way_end() -> None:
    reader, writer = Pipe(duplex=False)
    with reader, writer:
        writer.send_bytes(b"12345")
        with pytest.raises(OSError, match="bad message length"):
            reader.recv_bytes(0)
        assert reader.closed
    with pytest.raises(ValueError, match="negative maxlength"), Pipe()[0] as one:
        one.recv_bytes(-1)


# ---- time


def test_recv_gives_up_after_its_timeout(pipe: Pair) -> None:
    receiver, sender = pipe
    for timeout in (0, -1, 0.01):
        with pytest.raises(TimeoutError):
            receiver.recv(timeout=timeout)
    sender.send("late")
    assert receiver.recv(timeout=0) == "late"


@pytest.mark.parametrize("big", [False, True])
def test_a_message_that_came_in_part_is_continued_by_the_next_recv(pipe: Pair, big: bool) -> None:
    receiver, sender = pipe
    obj = bytes(range(256)) * (3000 if big else 1)
    data = pickle.dumps(obj)
    whole = struct.pack("!i", len(data)) + data
    cuts = [0, 1, 4, 5, 100, len(whole) // 2, len(whole)] if not big else [0, 3, 40_000, 50_000]
    for begin, end in itertools.pairwise(cuts):
        raw_write(sender, whole[begin:end])
        if end < len(whole):
            with pytest.raises(TimeoutError):
                receiver.recv(timeout=0.01)
    with ThreadPoolExecutor(1) as threads:
        rest = threads.submit(Connection.__dict__["fileno"], sender)
        rest.result(DEADLOCK)
        if big:
            writing = threads.submit(write_all, sender.fileno(), whole[50_000:])
            assert receiver.recv(timeout=DEADLOCK) == obj
            writing.result(DEADLOCK)
        else:
            assert receiver.recv(timeout=DEADLOCK) == obj


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def test_recv_bytes_and_recv_bytes_into_continue_a_part_too(duplex: Pair) -> None:
    one, other = duplex
    target = bytearray(40_000)
    for finish in (other.recv_bytes, lambda: bytes(target[: other.recv_bytes_into(target)])):
        payload = b"y" * 30_000
        raw_write(one, struct.pack("!i", len(payload)) + payload[:10])
        with pytest.raises(TimeoutError):
            other.recv_bytes(timeout=0)
        raw_write(one, payload[10:])
        assert finish() == payload


def test_a_part_of_a_message_keeps_the_connection_from_being_pickled(duplex: Pair) -> None:
    one, other = duplex
    raw_write(one, b"\0\0")
    with pytest.raises(TimeoutError):
        other.recv(timeout=0)
    carrier, _ = Pipe()
    with carrier, pytest.raises(PicklingError, match="a part of a message"):
        carrier.send(other)


class Interrupted(Exception):
    pass


@pytest.fixture
def alarm() -> Iterator[Callable[[], None]]:
    def interrupt(number: int, frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    yield lambda: signal.setitimer(signal.ITIMER_REAL, 0.05) and None
    signal.signal(signal.SIGALRM, before)


def test_an_interrupted_recv_loses_nothing(pipe: Pair, alarm: Callable[[], None]) -> None:
    receiver, sender = pipe
    payload = b"z" * 50_000
    raw_write(sender, struct.pack("!i", len(payload)) + payload[:20_000])
    with pytest.raises(Interrupted):
        alarm()
        receiver.recv_bytes()
    raw_write(sender, payload[20_000:])
    assert receiver.recv_bytes() == payload


def test_an_interrupted_recv_bytes_into_loses_nothing(duplex: Pair, alarm: Callable[[], None]) -> None:
    one, other = duplex
    payload = os.urandom(50_000)
    raw_write(one, struct.pack("!i", len(payload)) + payload[:20_000])
    with pytest.raises(Interrupted):
        alarm()
        other.recv_bytes_into(bytearray(60_000))
    raw_write(one, payload[20_000:])
    assert other.recv_bytes() == payload


@pytest.mark.usefixtures("alarm")
def test_no_message_follows_one_that_was_cut_off_in_the_middle(pipe: Pair) -> None:
    receiver, sender = pipe
    message, this_thread = bytes(20_000_000), threading.get_ident()

    def interrupt_amid() -> None:
        wait_until(receiver.poll, "the beginning of the message")
        signal.pthread_kill(this_thread, signal.SIGALRM)

    thread = threading.Thread(target=interrupt_amid)
    thread.start()
    with pytest.raises(Interrupted):
        sender.send_bytes(message)
    thread.join()
    with pytest.raises(BrokenPipeError, match="cut off"):
        sender.send_bytes(b"x")


def test_poll_waits_as_long_as_it_is_told(pipe: Pair) -> None:
    receiver, sender = pipe
    assert not receiver.poll()
    assert not receiver.poll(-1)
    assert not receiver.poll(0.01)
    sender.send_bytes(b"")
    assert receiver.poll()
    assert receiver.poll(None)
    assert receiver.recv_bytes() == b""
    assert not receiver.poll()


# ---- threads


def test_messages_of_eight_threads_never_mix(pipe: Pair) -> None:
    receiver, sender = pipe
    messages, threads = 40, 8

    def send(thread: int) -> None:
        for number in range(messages):
            sender.send((thread, number, bytes([thread]) * (number * 2500)))

    with ThreadPoolExecutor(threads) as pool:
        sends = [pool.submit(send, thread) for thread in range(threads)]
        received = [receiver.recv(timeout=DEADLOCK) for _ in range(messages * threads)]
        for sent in sends:
            sent.result(DEADLOCK)
    for thread, number, data in received:
        assert data == bytes([thread]) * (number * 2500)
    for thread in range(threads):
        assert [number for by, number, _ in received if by == thread] == list(range(messages))


def test_each_message_is_received_by_one_of_eight_threads(pipe: Pair) -> None:
    receiver, sender = pipe
    received: list[int] = []
    with ThreadPoolExecutor(8) as pool:
        readers = [pool.submit(lambda: received.extend(receiver)) for _ in range(8)]
        for number in range(500):
            sender.send(number)
        sender.close()
        for reader in readers:
            reader.result(DEADLOCK)
    assert sorted(received) == list(range(500))


def test_a_connection_closed_during_a_recv_keeps_its_descriptor_until_the_recv_ends(duplex: Pair) -> None:
    one, other = duplex
    entered = threading.Event()

    class Watching:
        def __getattr__(self, name: str) -> object:
            return getattr(stream, name)

        def read(self, maxlength: int | None, deadline: float | None) -> bytes:
            entered.set()
            return stream.read(maxlength, deadline)

    stream = one.endpoint._stream
    assert stream is not None
    one.endpoint._stream = Watching()  # type: ignore[assignment]
    number = one.fileno()
    with ThreadPoolExecutor(1) as pool:
        receiving = pool.submit(one.recv)
        assert entered.wait(DEADLOCK)
        one.close()
        assert one.closed
        os.fstat(number)  # still open: the number can't be a stranger's
        other.send("last")
        assert receiving.result(DEADLOCK) == "last"
    with pytest.raises(OSError):
        os.fstat(number)


def test_a_thread_that_waits_for_its_turn_gives_up_in_time(duplex: Pair) -> None:
    one, other = duplex
    with ThreadPoolExecutor(1) as pool:
        receiving = pool.submit(one.recv)
        wait_until(lambda: one.endpoint._receiving._busy)
        with pytest.raises(TimeoutError, match="another thread"):
            one.recv(timeout=0.01)
        other.send("for the first")
        assert receiving.result(DEADLOCK) == "for the first"


def test_a_signal_handler_that_repeats_the_call_gets_an_error_and_no_deadlock(duplex: Pair) -> None:
    one, other = duplex
    raised: list[BaseException] = []

    def repeat(number: int, frame: object) -> None:
        try:
            one.recv()
        except RuntimeError as error:
            raised.append(error)
        other.send("the interrupted call goes on")

    before = signal.signal(signal.SIGALRM, repeat)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert one.recv() == "the interrupted call goes on"
    finally:
        signal.signal(signal.SIGALRM, before)
    assert "reentrant" in str(raised[0])


# ---- wait


def test_wait_returns_what_is_ready_in_the_order_given() -> None:
    pairs = [Pipe(duplex=False) for _ in range(4)]
    readers = [reader for reader, _ in pairs]
    assert wait(readers, 0) == []
    assert wait(readers, -1) == []
    assert wait([], 0.01) == []
    pairs[3][1].send(1)
    pairs[1][1].close()
    assert wait(readers) == [readers[1], readers[3]]
    for end in itertools.chain(*pairs):
        end.close()


def test_wait_takes_descriptors_sockets_and_multiprocessings_connections(duplex: Pair) -> None:
    one, other = duplex
    theirs, their_other = stdlib_pipe()
    left, right = socket.socketpair()
    reader, writer = os.pipe()
    with theirs, their_other, left, right:
        objects: list[Connection | StdlibConnection | socket.socket | int] = [one, theirs, left, reader]
        assert wait(objects, 0) == []
        other.send(1)
        their_other.send(1)
        right.send(b"1")
        os.write(writer, b"1")
        assert wait(objects) == objects
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("wrong", ["text", None, -1, 1.5])
def test_wait_refuses_what_has_no_descriptor(wrong: object) -> None:
    with pytest.raises(ValueError, match="Invalid file"):
        wait([wrong], 0)  # type: ignore[type-var]


# ---- pickling


def test_a_connection_is_not_pickled_by_itself(duplex: Pair) -> None:
    with pytest.raises(PicklingError, match="pass it as an argument of a Process, or send it"):
        pickle.dumps(duplex[0])


@pytest.mark.parametrize("make", [Pipe, stdlib_pipe], ids=["procflow's", "multiprocessing's"])
def test_a_connection_sent_over_a_connection_works_there(duplex: Pair, make: Callable[[], Pair]) -> None:
    one, other = duplex
    far, near = make()
    with far, near:
        one.send(far)
        far_again = other.recv()
        assert type(far_again) is type(far)
        assert far_again.fileno() != far.fileno()
        with far_again:
            far_again.send("over the copy")
            assert near.recv() == "over the copy"
    import multiprocessing.resource_sharer as sharer

    sharer.stop(timeout=DEADLOCK)


def test_pipe_pickles_as_a_function_would() -> None:
    assert pickle.loads(pickle.dumps(Pipe)) is Pipe
    assert repr(Pipe) == "procflow.Pipe"


def test_the_classes_are_subscriptable_at_run_time() -> None:
    assert Connection[int, str].__origin__ is Connection
    one, other = Pipe[int, str]()
    with one, other:
        one.send(1)
        assert other.recv() == 1


# ---- who holds the other end: the rule


FLAGS = [False, True]


@pytest.mark.parametrize(
    ("visible", "used", "open_here", "running", "ended", "searched_empty"),
    list(itertools.product(FLAGS, FLAGS, FLAGS, (0, 1, 2), (0, 1, 2), FLAGS)),
)
def test_the_state_of_the_other_end_is_what_the_table_says(
    visible: bool, used: bool, open_here: bool, running: int, ended: int, searched_empty: bool
) -> None:
    state = decide(
        visible=visible,
        used=used,
        open_here=open_here,
        running=running,
        ended=ended,
        searched_empty=searched_empty,
    )
    if state is State.GONE:
        assert visible
        assert not used
        assert not running
        assert ended
        assert searched_empty
    elif state is State.SEARCH:
        assert ended and not running and not searched_empty and not used  # noqa: PT018
    elif state is State.WATCH:
        assert running and not used and visible  # noqa: PT018
    elif state is State.UNGIVEN:
        assert open_here and not running and not ended  # noqa: PT018
    else:
        assert used or not visible or not (open_here or running or ended)


class FakeChild:
    """A launched child: a pipe as its sentinel, and any process id."""

    def __init__(self, pid: int = 2**22 + 1) -> None:
        self.pid = pid
        self.sentinel, self._alive = os.pipe()
        self.returncode: int | None = None

    def die(self) -> None:
        os.close(self._alive)

    def close(self) -> None:
        os.close(self.sentinel)


linux = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")


@linux
def test_recv_ends_when_all_children_with_the_other_end_have_ended(pipe: Pair) -> None:
    receiver, sender = pipe
    children = [FakeChild(), FakeChild()]
    for child in children:
        sender.endpoint.give(child)
    sender_fd = sender.endpoint.number()
    os.write(sender_fd, struct.pack("!i", 2) + b"hi")  # as a child would: not through this process's connection
    children[0].die()
    assert receiver.recv_bytes(timeout=0.2) == b"hi"
    with pytest.raises(TimeoutError):
        receiver.recv(timeout=0.1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait, [receiver], DEADLOCK)
        polling = pool.submit(receiver.poll, None)
        children[1].die()
        assert waiting.result(DEADLOCK) == [receiver]
        assert polling.result(DEADLOCK)
    for _ in range(2):
        with pytest.raises(EOFError):
            receiver.recv()
    for child in children:
        child.close()


@linux
def test_what_a_child_wrote_before_it_ended_comes_before_the_end(pipe: Pair) -> None:
    receiver, sender = pipe
    child = FakeChild()
    sender.endpoint.give(child)
    child.die()
    assert receiver.poll(DEADLOCK)
    os.write(sender.endpoint.number(), struct.pack("!i", 2) + b"hi")
    assert receiver.recv_bytes() == b"hi"
    with pytest.raises(EOFError):
        receiver.recv()
    os.write(sender.endpoint.number(), struct.pack("!i", 9) + b"part")
    with pytest.raises(TruncatedMessage):
        receiver.recv()
    child.close()


@linux
@pytest.mark.parametrize("size", [10, 100_000])
def test_send_breaks_when_all_children_with_the_reading_end_have_ended(size: int) -> None:
    for duplex_pipe in (True, False):
        reader, writer = Pipe(duplex_pipe)
        with reader, writer, ThreadPoolExecutor(1) as pool:
            child = FakeChild()
            reader.endpoint.give(child)
            writer.send_bytes(b"before")

            def fill(sender: Connection = writer) -> None:
                while True:
                    sender.send_bytes(bytes(size))

            filling = pool.submit(fill)
            child.die()
            assert isinstance(filling.exception(DEADLOCK), BrokenPipeError)
            child.close()


@linux
def test_an_end_that_this_process_uses_itself_never_ends_with_a_child(pipe: Pair) -> None:
    receiver, sender = pipe
    child = FakeChild()
    sender.endpoint.give(child)
    sender.send("mine")
    child.die()
    assert receiver.recv() == "mine"
    with pytest.raises(TimeoutError):
        receiver.recv(timeout=0.1)
    sender.send("still mine")
    assert receiver.recv() == "still mine"
    child.close()


@linux
def test_another_holder_of_the_end_keeps_it_alive(pipe: Pair) -> None:
    receiver, sender = pipe
    child = FakeChild()
    sender.endpoint.give(child)
    holder = os.dup(sender.endpoint.number())  # as a grandchild would, in a process of its own
    child.die()
    with pytest.raises(TimeoutError):
        receiver.recv(timeout=0.1)
    os.write(holder, struct.pack("!i", 2) + b"hi")
    assert receiver.recv_bytes() == b"hi"
    os.close(holder)
    with pytest.raises(EOFError):
        receiver.recv()
    child.close()


@linux
def test_an_end_given_to_another_child_is_alive_again(pipe: Pair) -> None:
    receiver, sender = pipe
    first, second = FakeChild(), FakeChild()
    sender.endpoint.give(first)
    first.die()
    with pytest.raises(EOFError):
        receiver.recv()
    sender.endpoint.give(second)
    with pytest.raises(TimeoutError):
        receiver.recv(timeout=0.05)
    second.die()
    with pytest.raises(EOFError):
        receiver.recv()
    first.close()
    second.close()


@linux
def test_a_recv_that_began_before_the_launch_ends_too(pipe: Pair) -> None:
    receiver, sender = pipe
    child = FakeChild()
    with ThreadPoolExecutor(1) as pool:
        receiving = pool.submit(receiver.recv)
        wait_until(lambda: receiver.endpoint._receiving._busy)
        sender.endpoint.give(child)
        child.die()
        assert isinstance(receiving.exception(DEADLOCK), EOFError)
    child.close()


@linux
def test_a_launch_that_failed_is_no_child(pipe: Pair) -> None:
    receiver, sender = pipe

    class Popen:
        pid = 0
        sentinel = None

    popen = Popen()
    sender.endpoint.give(popen)  # type: ignore[arg-type]
    with pytest.raises(TimeoutError):
        receiver.recv(timeout=0)
    del popen
    with pytest.raises(TimeoutError):
        receiver.recv(timeout=0.1)


@linux
def test_a_closed_connection_holds_no_sentinel(pipe: Pair) -> None:
    receiver, sender = pipe
    before = open_fds()
    child = FakeChild()
    sender.endpoint.give(child)
    with pytest.raises(TimeoutError):
        receiver.recv(timeout=0)
    receiver.close()
    sender.close()
    child.die()
    child.close()
    assert open_fds().keys() <= before.keys()


@linux
def test_a_search_is_repeated_ever_more_slowly(pipe: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver, sender = pipe
    searches: list[str] = []

    def held(link: str) -> Iterator[tuple[int, int]]:
        searches.append(link)
        yield 1, 5

    monkeypatch.setattr(peers, "find_holders", held)
    child = FakeChild()
    sender.endpoint.give(child)
    child.die()
    with pytest.raises(TimeoutError):
        receiver.recv(timeout=0.3)
    assert 2 <= len(searches) <= 10
    child.close()


@linux
def test_without_proc_only_the_kernel_tells_the_end(pipe: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver, sender = pipe
    monkeypatch.setattr(peers, "_describe", lambda path, writable: None)
    child = FakeChild()
    sender.endpoint.give(child)
    child.die()
    with pytest.raises(TimeoutError):
        receiver.recv(timeout=0.1)
    child.close()


# ---- what a child is given


class HasConnection:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def method(self) -> None: ...


A_GLOBAL: list[Connection] = []


def names_a_global() -> object:
    return A_GLOBAL


def test_connections_are_found_in_what_a_child_is_given(duplex: Pair) -> None:
    import functools

    one, other = duplex
    for given in (
        (one,),
        {"key": [one]},
        {1: {"deep": (one, one)}},
        functools.partial(print, one),
        functools.partial(print, end=one),
        HasConnection(one).method,
        lambda: one,
        lambda default=one: default,
    ):
        assert connections_in((given, 1, "text", None)) == [one]
    assert connections_in([1, "a", other, {"b": one}]) == [other, one]
    A_GLOBAL[:] = [one]
    assert connections_in(names_a_global) == []
    assert connections_in(names_a_global, inherited=True) == [one]
    A_GLOBAL.clear()


def test_a_big_argument_is_not_searched_for_ever(duplex: Pair) -> None:
    big = list(range(1_000_000))
    loop: list[object] = [big]
    loop.append(loop)
    assert connections_in((duplex[0], loop)) == [duplex[0]]


def test_importing_connection_costs_no_typing() -> None:
    import subprocess

    code = "import procflow.connection, sys; assert 'typing' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], timeout=DEADLOCK, check=False).returncode == 0
