"""How fast is a Pipe: ping-pong of a small object with another process, and 64 MiB one way?

The other process is a fork of the one that measures. "One thread" is the cost of the code alone, without a wake-up.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from _hosts import Question, run
from _peers import Peer

SMALL = {"task": 7, "name": "ping", "values": [1, 2.5, None]}


def with_child(child: Callable[[], None], parent: Callable[[], float]) -> float:
    pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os._exit(0)
    try:
        return parent()
    finally:
        os.waitpid(pid, 0)


def ping_pong(peer: Peer, count: int) -> float:
    near, far = peer.pipe()

    def echo() -> None:
        for _ in range(count):
            far.send(far.recv())

    def ping() -> float:
        far.close()
        begin = time.perf_counter()
        for _ in range(count):
            near.send(SMALL)
            near.recv()
        return (time.perf_counter() - begin) / count

    with near, far:
        return with_child(echo, ping)


def one_thread(peer: Peer, count: int) -> float:
    reader, writer = peer.pipe(False)
    with reader, writer:
        begin = time.perf_counter()
        for _ in range(count):
            writer.send(SMALL)
            reader.recv()
        return (time.perf_counter() - begin) / count


def one_way(peer: Peer, count: int, kind: str, duplex: bool) -> float:
    """Return the seconds until `count` MiB have arrived in the parent."""
    size = count * 2**20
    reader, writer = peer.pipe(duplex)
    start, started = os.pipe()
    if kind == "array":
        import numpy

        payload = numpy.ones(size // 8)
        send, receive = writer.send, reader.recv
    else:
        payload = b"x" * size
        send, receive = writer.send_bytes, reader.recv_bytes

    def give() -> None:
        os.read(start, 1)
        send(payload)

    def take() -> float:
        writer.close()
        begin = time.perf_counter()
        os.write(started, b"1")
        got = receive()
        seconds = time.perf_counter() - begin
        assert len(got) == len(payload)
        return seconds

    try:
        with reader, writer:
            return with_child(give, take)
    finally:
        os.close(start)
        os.close(started)


QUESTIONS = [
    Question("ping-pong of a small object, per round trip", ping_pong, 2000, needs="pipe"),
    Question("send and recv in one thread", one_thread, 2000, needs="pipe"),
    *(
        Question(
            f"64 MiB {kind} one way, {'duplex' if duplex else 'one-way'} pipe",
            one_way,
            64,
            needs="pipe",
            settings={"kind": kind, "duplex": duplex},
        )
        for kind in ("array", "bytes")
        for duplex in (True, False)
    ),
]

if __name__ == "__main__":
    run(QUESTIONS)
