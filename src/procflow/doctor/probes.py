"""The programs of the self-test and of the measurements. Each runs in an interpreter of its own, see `runs.py`.

They print one line of JSON when a step begins, `{"step": name}`, and another one when it has ended, with its outcome:
so whoever reads them knows in which step a program has hung or died.
"""

from __future__ import annotations

import faulthandler
import json
import os
import statistics
import sys
import traceback
from pickle import PickleBuffer
from time import perf_counter

from procflow import Connection, Pipe, Pool, Process, WorkerDied, active_children, get_context
from procflow.context import Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["CHECKS", "MEASURES", "check", "measure"]

BIG = 16 << 20
KILL = 9
ROUNDS = 1000
COPIES = 20
ITEMS = 100_000
MESSAGE = bytes(100)


# -- what runs in workers ---------------------------------------------------------------------------------------------


def echo(value: object) -> object:
    """Give it back."""
    return value


def echo_buffer(view: memoryview) -> PickleBuffer:
    """Give back memory, the way that an array's goes."""
    return PickleBuffer(view)


def end_worker() -> None:
    """End the process as the kernel does when memory runs out."""
    os.kill(os.getpid(), KILL)


def answer(connection: Connection[object, object]) -> None:
    """Send back whatever comes, until the other end closes."""
    for message in connection:
        connection.send(message)


def answer_raw(reader: Connection[object, object], writer: Connection[object, object]) -> None:
    """The same by nothing but the system's calls."""
    incoming, outgoing = reader.fileno(), writer.fileno()
    while message := os.read(incoming, len(MESSAGE)):
        os.write(outgoing, message)


# -- the self-test ----------------------------------------------------------------------------------------------------


def one_task(context: Context) -> None:
    """A pool starts, runs a call, and ends."""
    with context.Pool(1) as pool:
        _expect(pool.apply(abs, (-7,)), 7)


def many_tasks(context: Context) -> None:
    """A map over two workers, with a function that travels by value."""
    with context.Pool(2) as pool:
        _expect(pool.map(lambda number: number + 1, range(1000)), list(range(1, 1001)))


def dying_worker(context: Context) -> None:
    """A task kills its worker: it fails alone, and the pool goes on."""
    with context.Pool(1) as pool:
        error = pool.submit(end_worker).exception()
        if not isinstance(error, WorkerDied):
            raise AssertionError(f"a task that was killed ended with {error!r}, not with WorkerDied")
        _expect(pool.apply(abs, (-7,)), 7)


def big_data(context: Context) -> None:
    """16 MiB go to a worker and come back, as bytes and as a buffer, the way of arrays."""
    data = os.urandom(BIG)
    with context.Pool(1) as pool:
        if pool.apply(echo, (data,)) != data:
            raise AssertionError("bytes came back changed")
        buffer: Any = PickleBuffer(bytearray(data))
        returned: Any = pool.submit(echo_buffer, buffer).result()
        if bytes(returned) != data:
            raise AssertionError("a buffer came back changed")


def process_and_pipe(context: Context) -> None:
    """A process answers over a pipe, and ends when that is closed."""
    ours, theirs = context.Pipe()
    process = context.Process(target=answer, args=(theirs,))
    process.start()
    theirs.close()
    ours.send("hello")
    _expect(ours.recv(), "hello")
    ours.close()
    process.join()
    _expect(process.exitcode, 0)


def nothing_left(context: Context) -> None:
    """No child of the steps before is still there."""
    _expect(active_children(), [])


CHECKS: dict[str, Callable[[Context], None]] = {
    "one task": one_task,
    "a thousand tasks": many_tasks,
    "a worker that dies": dying_worker,
    "16 MiB there and back": big_data,
    "a process and a pipe": process_and_pipe,
    "nothing is left": nothing_left,
}


def check(method: str, limit: float) -> None:
    """Run the checks under a start method."""
    _end_after(limit)
    context = get_context(method)
    for name, step in CHECKS.items():
        _tell(step=name)
        began, error = perf_counter(), None
        try:
            step(context)
        except Exception:  # noqa: BLE001 - whatever it was, that is what the report is for
            error = traceback.format_exc()
        _tell(step=name, value=perf_counter() - began, error=error)


# -- the speed --------------------------------------------------------------------------------------------------------


def memory_copy() -> float:
    """Copy 16 MiB within this process. GB/s."""
    source, target = memoryview(os.urandom(BIG)), memoryview(bytearray(BIG))

    def copy() -> None:
        target[:] = source

    return _gigabytes_per_second(BIG, copy)


def pipe_round_trip() -> float:
    """100 bytes to another process and back by two pipes, by the system's calls alone. Microseconds."""
    (their_reader, our_writer), (our_reader, their_writer) = Pipe(duplex=False), Pipe(duplex=False)
    with Process(target=answer_raw, args=(their_reader, their_writer)), our_reader:
        their_reader.close()
        their_writer.close()
        with our_writer:
            incoming, outgoing = our_reader.fileno(), our_writer.fileno()

            def there_and_back() -> None:
                os.write(outgoing, MESSAGE)
                os.read(incoming, len(MESSAGE))

            return _microseconds(there_and_back)


def connection_round_trip() -> float:
    """100 bytes to another process and back by `Connection.send` and `recv`. Microseconds."""
    ours, theirs = Pipe()
    with Process(target=answer, args=(theirs,)):
        theirs.close()
        with ours:

            def there_and_back() -> None:
                ours.send(MESSAGE)
                ours.recv()

            return _microseconds(there_and_back)


def task_round_trip() -> float:
    """One task at a time: `pool.submit(abs, -1).result()`. Microseconds."""
    with Pool(1) as pool:
        return _microseconds(lambda: pool.submit(abs, -1).result())


def small_tasks() -> float:
    """`pool.map(abs, range(100_000))` with two workers. Tasks per second."""
    with Pool(2) as pool:
        pool.map(abs, range(ITEMS))
        began = perf_counter()
        pool.map(abs, range(ITEMS))
        return ITEMS / (perf_counter() - began)


def block_to_worker() -> float:
    """A task whose argument is a buffer of 16 MiB. GB/s."""
    data: Any = PickleBuffer(bytearray(os.urandom(BIG)))
    with Pool(1) as pool:
        return _gigabytes_per_second(BIG, lambda: pool.submit(len, data).result())


def block_there_and_back() -> float:
    """A task that gives back the buffer of 16 MiB that it got; both ways are counted. GB/s."""
    data: Any = PickleBuffer(bytearray(os.urandom(BIG)))
    with Pool(1) as pool:
        return _gigabytes_per_second(2 * BIG, lambda: pool.submit(echo_buffer, data).result())


MEASURES: dict[str, tuple[str, Callable[[], float]]] = {
    "memory_copy": ("GB/s", memory_copy),
    "pipe_round_trip": ("us", pipe_round_trip),
    "connection_round_trip": ("us", connection_round_trip),
    "task_round_trip": ("us", task_round_trip),
    "small_tasks": ("tasks/s", small_tasks),
    "block_to_worker": ("GB/s", block_to_worker),
    "block_there_and_back": ("GB/s", block_there_and_back),
}


def measure(limit: float) -> None:
    """Run the measurements, under the default start method."""
    _end_after(limit)
    for name, (_, step) in MEASURES.items():
        _tell(step=name)
        value, error = 0.0, None
        try:
            value = step()
        except Exception:  # noqa: BLE001
            error = traceback.format_exc()
        _tell(step=name, value=value, error=error)


# ---------------------------------------------------------------------------------------------------------------------


def _expect(found: object, wanted: object) -> None:
    if found != wanted:
        raise AssertionError(f"{found!r} came, not {wanted!r}")


def _end_after(limit: float) -> None:
    """End this program with the stacks of its threads when time is up, whatever holds it; its workers end with it."""
    faulthandler.dump_traceback_later(limit, exit=True)


def _tell(**facts: object) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def _microseconds(step: Callable[[], object]) -> float:
    for _ in range(ROUNDS // 10):
        step()
    return statistics.median(_seconds(step) for _ in range(ROUNDS)) * 1e6


def _gigabytes_per_second(nbytes: int, step: Callable[[], object]) -> float:
    for _ in range(3):  # what is used for the first time is slower: its pages are not there yet
        step()
    return nbytes / statistics.median(_seconds(step) for _ in range(COPIES)) / 1e9


def _seconds(step: Callable[[], object]) -> float:
    began = perf_counter()
    step()
    return perf_counter() - began
