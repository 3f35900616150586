"""A storm: random work on pools whose workers are killed. Each task ends once: with its result, or WorkerDied.

    python -m tests.stress.storm SECONDS [SEED]

It prints the seed of a failure; the same seed makes the same choices, though the machine makes the moments. Memory and
descriptors are looked at after each round: they are to stay flat.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import random
import signal
import sys
import time
from functools import partial

import psutil

import procflow
from tests.stress import tasks
from tests.support import DEADLOCK, open_fds

METHODS = ["fork", "forkserver", "spawn"]
GROWTH = 30_000_000  # bytes: what an allocator may keep
HELD = 20  # descriptors


def kill_a_worker(dice: random.Random) -> None:
    """Kill a worker of any pool, whatever it is doing."""
    workers = [
        process for process in psutil.Process().children(recursive=True) if process.pid in tasks.known(os.getpid())
    ]
    if workers:
        try:
            dice.choice(workers).send_signal(dice.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV]))
        except psutil.NoSuchProcess:
            pass


def check_future(future: procflow.Future[int], expected: int) -> None:
    error = future.exception(DEADLOCK)
    if error is None:
        assert future.result() == expected, (future.result(), expected)
    else:
        assert isinstance(error, procflow.WorkerDied), error


def submit(pool: procflow.Pool, dice: random.Random) -> None:
    futures = [(pool.submit(tasks.double, os.getpid(), n), 2 * n) for n in range(dice.randrange(300))]
    cancelled = [dice.random() < 0.1 and future.cancel() for future, _ in futures]
    kill_a_worker(dice)
    for (future, expected), was in zip(futures, cancelled, strict=True):
        if was:
            assert future.cancelled()
        else:
            check_future(future, expected)


def map_it(pool: procflow.Pool, dice: random.Random) -> None:
    count = dice.randrange(2000)
    mapped = pool.map_async(partial(tasks.double, os.getpid()), range(count), dice.choice([None, 1, 7, 100]))
    kill_a_worker(dice)
    error = mapped.exception(DEADLOCK)
    if error is None:
        assert mapped.result() == [2 * n for n in range(count)]
    else:
        assert isinstance(error, procflow.WorkerDied), error


def stream_it(pool: procflow.Pool, dice: random.Random) -> None:
    count, chunk = dice.randrange(1000), dice.choice([None, 1, 5])
    inputs = range(count) if dice.random() < 0.5 else iter(range(count))
    stream = pool.imap(partial(tasks.double, os.getpid()), inputs, chunk)
    limit = dice.choice([count, count // 2])  # the rest is abandoned
    taken = 0
    while taken < limit:
        if dice.random() < 0.01:
            kill_a_worker(dice)
        try:
            assert stream.next(DEADLOCK) == 2 * taken
            taken += 1
        except procflow.WorkerDied:
            taken += min(chunk or 1, count - taken)


def unordered(pool: procflow.Pool, dice: random.Random) -> None:
    count, got, died = dice.randrange(1000), [], 0
    stream = pool.imap_unordered(partial(tasks.double, os.getpid()), iter(range(count)), 1)
    while True:
        if dice.random() < 0.01:
            kill_a_worker(dice)
        try:
            got.append(stream.next(DEADLOCK))
        except procflow.WorkerDied:
            died += 1
        except StopIteration:
            break
    assert len(set(got)) == len(got) == count - died
    assert set(got) <= {2 * n for n in range(count)}


def run_round(dice: random.Random) -> str:
    """Open some pools, use each in turn, end them in some way."""
    pools = []
    said = []
    for _ in range(dice.randint(1, 3)):
        method, limit = dice.choice(METHODS), dice.choice([None, None, 50, 200])
        said.append(f"{method}/{limit}")
        pools.append(procflow.get_context(method).Pool(dice.randint(1, 4), maxtasksperchild=limit))
    for _ in range(dice.randint(1, 8)):
        dice.choice([submit, map_it, stream_it, unordered])(dice.choice(pools), dice)
    for pool in pools:
        pool.close() if dice.random() < 0.5 else pool.terminate()
        pool.join()
    return " ".join(said)


def main() -> None:
    seconds = float(sys.argv[1])
    first = int(sys.argv[2]) if len(sys.argv) > 2 and sys.argv[2] else random.SystemRandom().randrange(10**9)
    until = time.monotonic() + seconds
    rounds, base = 0, None
    while time.monotonic() < until:
        seed = first + rounds
        faulthandler.dump_traceback_later(4 * DEADLOCK, exit=True)
        try:
            said = run_round(random.Random(seed))
        except BaseException:
            print(f"failed: SEED={seed}", flush=True)
            raise
        faulthandler.cancel_dump_traceback_later()
        rounds += 1
        gc.collect()
        memory, fds = psutil.Process().memory_info().rss, len(open_fds())
        if rounds % 20 == 0:
            print(f"{rounds} rounds, last {seed}: {said}; {memory >> 20} MiB, {fds} descriptors", flush=True)
        if rounds == 20:
            base = memory, fds
        if base is not None:
            assert memory < base[0] + GROWTH, f"memory grows: {base[0]} to {memory}; SEED={first}"
            assert fds < base[1] + HELD, f"descriptors grow: {base[1]} to {fds}; SEED={first}"
    print(f"{rounds} rounds from SEED={first}: every task ended once")


if __name__ == "__main__":
    main()
