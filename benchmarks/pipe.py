"""How fast is procflow.Pipe next to multiprocessing.Pipe? Ping-pong of a small object, and 64 MiB one way.

    python benchmarks/pipe.py [--rounds N] [--json FILE]

Both are run in turn, round by round, in processes made by fork from the same parent, so that what else the machine does
meets both alike. The medians are printed, and the ratio procflow : multiprocessing (below 1: procflow is faster).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from multiprocessing import Pipe as stdlib_pipe
from typing import Any

import numpy

from procflow.connection import Pipe as procflow_pipe

PINGS = 2000
SMALL = {"task": 7, "name": "ping", "values": [1, 2.5, None]}
BIG = 64 * 2**20

Case = Callable[[Callable[..., Any]], float]


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


def ping_pong(make: Callable[..., Any]) -> float:
    """Return the seconds of one round trip of a small object."""
    near, far = make()

    def echo() -> None:
        for _ in range(PINGS):
            far.send(far.recv())

    def ping() -> float:
        far.close()
        begin = time.perf_counter()
        for _ in range(PINGS):
            near.send(SMALL)
            near.recv()
        return (time.perf_counter() - begin) / PINGS

    with near, far:
        return with_child(echo, ping)


def one_thread(make: Callable[..., Any]) -> float:
    """Return the seconds of a send and its recv in one thread: the cost of the code, without a wake-up."""
    reader, writer = make(False)
    with reader, writer:
        begin = time.perf_counter()
        for _ in range(PINGS):
            writer.send(SMALL)
            reader.recv()
        return (time.perf_counter() - begin) / PINGS


def one_way(payload: Any, *, duplex: bool, as_bytes: bool) -> Case:
    """Return a case: the seconds until 64 MiB have arrived in the parent."""

    def case(make: Callable[..., Any]) -> float:
        reader, writer = make(duplex)
        start, started = os.pipe()

        def send() -> None:
            os.read(start, 1)
            (writer.send_bytes if as_bytes else writer.send)(payload)

        def receive() -> float:
            writer.close()
            begin = time.perf_counter()
            os.write(started, b"1")
            got = reader.recv_bytes() if as_bytes else reader.recv()
            seconds = time.perf_counter() - begin
            assert len(got) in (BIG, BIG // 8)
            return seconds

        try:
            with reader, writer:
                return with_child(send, receive)
        finally:
            os.close(start)
            os.close(started)

    return case


CASES: dict[str, Case] = {
    "ping-pong, small object": ping_pong,
    "send and recv in one thread": one_thread,
    "64 MiB send_bytes, duplex": one_way(bytes(BIG), duplex=True, as_bytes=True),
    "64 MiB send_bytes, one-way": one_way(bytes(BIG), duplex=False, as_bytes=True),
    "64 MiB numpy array, duplex": one_way(numpy.zeros(BIG // 8), duplex=True, as_bytes=False),
    "64 MiB numpy array, one-way": one_way(numpy.zeros(BIG // 8), duplex=False, as_bytes=False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()

    results: dict[str, dict[str, float]] = {}
    print(f"{'median':32}{'procflow':>14}{'multiprocessing':>18}{'ratio':>8}")
    for name, case in CASES.items():
        times: dict[str, list[float]] = {"procflow": [], "multiprocessing": []}
        for _ in range(options.rounds):
            for library, make in (("procflow", procflow_pipe), ("multiprocessing", stdlib_pipe)):
                times[library].append(case(make))
        medians = {library: statistics.median(seconds) for library, seconds in times.items()}
        ratio = medians["procflow"] / medians["multiprocessing"]
        results[name] = {**{f"{library}_us": value * 1e6 for library, value in medians.items()}, "ratio": ratio}
        ours, theirs = (f"{medians[library] * 1e6:.1f} us" for library in times)
        print(f"{name:32}{ours:>14}{theirs:>18}{ratio:>8.2f}")
    if options.json:
        facts = {"python": platform.python_version(), "system": platform.platform(), "cpus": os.cpu_count()}
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({**facts, "rounds": options.rounds, "results": results}, file, indent=2)


if __name__ == "__main__":
    main()
