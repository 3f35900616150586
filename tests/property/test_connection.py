"""Whatever is sent arrives whole and in order, however the stream is cut into pieces."""

from __future__ import annotations

import itertools
import os
import pickle
import struct
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given, settings
from hypothesis import strategies as st

from procflow.connection import Connection, Pipe
from procflow.errors import TimeoutError
from tests.support import DEADLOCK

small = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
# Around the sizes at which the code takes another path: one write or two, the fast read or the growing one.
sizes = st.sampled_from([0, 1, 3, 4, 4095, 4096, 4097, 16384, 16385, 262_143, 262_144, 262_145, 1_048_577, 2_300_000])
big = sizes.map(lambda size: (b"0123456789abcdef" * (size // 16 + 1))[:size])


@settings(max_examples=40, deadline=None)
@given(objects=st.lists(small | big, max_size=8), duplex=st.booleans())
def test_objects_arrive_whole_and_in_order(objects: list[object], duplex: bool) -> None:
    receiver, sender = Pipe(duplex)
    with receiver, ThreadPoolExecutor(1) as threads:

        def send_all() -> None:
            with sender:
                for obj in objects:
                    sender.send(obj)

        sending = threads.submit(send_all)
        assert list(receiver) == objects
        sending.result(DEADLOCK)


@settings(max_examples=60, deadline=None)
@given(
    messages=st.lists(small.map(pickle.dumps) | st.binary(max_size=40_000), min_size=1, max_size=5),
    cuts=st.lists(st.integers(0, 2**17), max_size=12),
)
def test_messages_survive_any_delivery_in_chunks(messages: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(struct.pack("!i", len(message)) + message for message in messages)
    edges = sorted({0, len(whole), *(cut % (len(whole) + 1) for cut in cuts), *range(0, len(whole), 30_000)})
    left, right = os.pipe()
    received: list[bytes] = []
    with Connection(left, writable=False) as receiver:
        for begin, end in itertools.pairwise(edges):
            assert os.write(right, whole[begin:end]) == end - begin
            while True:
                try:
                    received.append(receiver.recv_bytes(timeout=0))
                except TimeoutError:
                    break
        os.close(right)
    assert received == messages


@settings(max_examples=60, deadline=None)
@given(garbage=st.binary(min_size=1, max_size=64))
def test_garbage_raises_and_never_hangs(garbage: bytes) -> None:
    left, right = os.pipe()
    with Connection(left, writable=False) as receiver:
        os.write(right, garbage)
        os.close(right)
        try:
            while True:
                receiver.recv_bytes(timeout=DEADLOCK)
        except (EOFError, OSError):
            pass
