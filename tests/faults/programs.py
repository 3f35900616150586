"""Programs that a test runs in a session of their own and judges from outside: `python -m tests.faults.programs NAME`.

Each is a user's program. It says on standard output what the test has to know, and a file for each task that began.
"""

from __future__ import annotations

import gc
import itertools
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import psutil

import procflow

LONG = 60.0  # seconds: far longer than a test may take


def hold(folder: str, _: object = None) -> None:
    """A task that says that it began, and does not end."""
    begin(folder)
    time.sleep(LONG)


def begin(folder: str) -> None:
    Path(folder, f"began-{os.getpid()}").touch()


def double(n: int) -> int:
    return 2 * n


def begin_and_double(folder: str, n: int) -> int:
    begin(folder)
    return 2 * n


# -- Ctrl-C -----------------------------------------------------------------------------------------------------------


def wait_in_map(method: str, folder: str) -> None:
    with procflow.get_context(method).Pool(2) as pool:
        pool.map(hold, [folder] * 4, 1)


def wait_in_imap(method: str, folder: str) -> None:
    with procflow.get_context(method).Pool(2) as pool:
        for _ in pool.imap(hold, itertools.repeat(folder)):
            pass


def wait_in_result(method: str, folder: str) -> None:
    with procflow.get_context(method).Pool(2) as pool:
        held = [pool.submit(hold, folder) for _ in range(4)]
        held[-1].result()


def wait_in_join(method: str, folder: str) -> None:
    pool = procflow.get_context(method).Pool(2)
    for _ in range(4):
        pool.submit(hold, folder)
    pool.close()
    pool.join()


def wait_in_exit(method: str, folder: str) -> None:
    with procflow.get_context(method).Pool(2) as pool:
        for _ in range(4):
            pool.submit(hold, folder)


def wait_as_follower(method: str, folder: str) -> None:
    with procflow.get_context(method).Pool(2) as pool:
        held = [pool.submit(hold, folder) for _ in range(4)]
        threading.Thread(target=held[0].wait, daemon=True).start()
        held[-1].result()


def be_busy(method: str, folder: str) -> None:
    """Ctrl-C comes between any two steps."""
    with procflow.get_context(method).Pool(2) as pool:
        for n in itertools.count():
            assert pool.submit(begin_and_double, folder, n).result() == 2 * n
            assert pool.map(double, range(n % 50)) == [2 * i for i in range(n % 50)]


def stream_busily(method: str, folder: str) -> None:
    """As `be_busy`; what comes is to be in order and whole, up to the interruption."""
    with procflow.get_context(method).Pool(2) as pool:
        begin(folder)
        for n, found in enumerate(pool.imap(double, itertools.count())):
            assert found == 2 * n


def open_and_close(method: str, folder: str) -> None:
    """Ctrl-C comes while workers start and end."""
    while True:
        with procflow.get_context(method).Pool(2, maxtasksperchild=2) as pool:
            begin(folder)
            assert pool.map(double, range(4)) == [0, 2, 4, 6]


# -- signals of other kinds -------------------------------------------------------------------------------------------


def end_on_sigterm(pool: procflow.Pool) -> None:
    """Set the handler that many programs have."""

    def leave(_signum: int, _frame: FrameType | None) -> None:
        pool.terminate()
        pool.join()
        sys.exit(7)

    signal.signal(signal.SIGTERM, leave)


def end_in_a_handler(method: str, folder: str) -> None:
    """The signal comes while the program waits."""
    pool = procflow.get_context(method).Pool(2)

    end_on_sigterm(pool)
    pool.map(hold, [folder] * 4, 1)


def end_busily_in_a_handler(method: str, folder: str) -> None:
    """As `end_in_a_handler`, but the signal comes between any two steps of the pool."""
    pool = procflow.get_context(method).Pool(2)

    end_on_sigterm(pool)
    for n in itertools.count():
        pool.submit(begin_and_double, folder, n).result()


def use_in_a_handler(method: str, folder: str) -> None:
    """A handler uses the pool that it may have interrupted: it works, or it is told that it can't be."""
    with procflow.get_context(method).Pool(2) as pool:
        outcomes: list[object] = []

        def ask(_signum: int, _frame: FrameType | None) -> None:
            try:
                outcomes.append(pool.submit(double, 21).result())
            except procflow.PoolBusy as error:
                outcomes.append(type(error).__name__)

        signal.signal(signal.SIGALRM, ask)
        n = 0
        while (told := len(outcomes)) < 300:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 1e-3))  # once
            while len(outcomes) == told:
                assert pool.submit(double, n).result() == 2 * n
                n += 1
        wrong = [outcome for outcome in outcomes if outcome not in (42, "PoolBusy")]
        assert not wrong, wrong
        assert 42 in outcomes


# -- pools that nobody ends -------------------------------------------------------------------------------------------


def end_without_close(method: str, folder: str) -> None:
    pool = procflow.get_context(method).Pool(2)
    for _ in range(2):
        pool.submit(hold, folder)
    _wait_began(folder, 2)


def drop_then_go_on(method: str, folder: str) -> None:
    pool = procflow.get_context(method).Pool(2)
    for _ in range(2):
        pool.submit(hold, folder)
    _wait_began(folder, 2)
    family = psutil.Process().children(recursive=True)
    workers = [member for member in family if any(member.pid == int(name) for name in _began(folder))]
    assert len(workers) == 2
    del pool
    gc.collect()
    psutil.wait_procs(workers, LONG)


def _began(folder: str) -> list[str]:
    return [path.name.removeprefix("began-") for path in Path(folder).glob("began-*")]


def _wait_began(folder: str, tasks: int) -> None:
    while len(_began(folder)) < tasks:
        time.sleep(0.001)


# -- forks of the program ---------------------------------------------------------------------------------------------


def fork_while_working(method: str, folder: str, ends: str) -> None:
    """The child tries what it has copies of, then ends in its own way; the parent goes on."""
    with procflow.get_context(method).Pool(2) as pool:
        held, done = pool.submit(wait_for, Path(folder, "gate")), pool.submit(double, 4)
        assert done.result() == 8
        stream = pool.imap(double, itertools.count(), buffersize=100)
        assert next(stream) == 0
        stop = threading.Event()
        others = [threading.Thread(target=_submit_until, args=(pool, stop)) for _ in range(2)]
        for other in others:
            other.start()
        for _ in range(20):  # the others hold the pool's locks in some of them
            child = os.fork()
            if child == 0:
                _use_copies(pool, held, done, stream)
                if ends == "sys.exit":
                    sys.exit(0)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        stop.set()
        for other in others:
            other.join()
        begin_file(Path(folder, "gate"))
        assert held.result() == "opened"
        assert [next(stream) for _ in range(50)] == [2 * n for n in range(1, 51)]
        assert pool.map(double, range(100)) == [2 * n for n in range(100)]


def _use_copies(
    pool: procflow.Pool, held: procflow.Future[str], done: procflow.Future[int], stream: Iterator[int]
) -> None:
    assert done.result() == 8
    uses = [
        held.result,
        held.cancel,
        held.running,
        lambda: held.add_done_callback(print),
        lambda: [next(stream) for _ in range(1000)],
        lambda: pool.submit(double, 1),
        lambda: pool.map(double, [1]),
        lambda: pool.imap(double, [1]),
    ]
    for number, use in enumerate(uses):
        try:
            use()
        except procflow.PoolClosed as refusal:
            refused = "fork" in str(refusal)
        else:
            refused = False
        assert refused, f"use {number}"
    stream.close()  # type: ignore[attr-defined]
    pool.close()
    pool.terminate()
    pool.join()


def _submit_until(pool: procflow.Pool, stop: threading.Event) -> None:
    while not stop.is_set():
        assert pool.submit(double, 2).result() == 4


def wait_for(path: Path) -> str:
    while not path.exists():
        time.sleep(0.001)
    return "opened"


def begin_file(path: Path) -> None:
    path.touch()


PROGRAMS = {name: made for name, made in list(globals().items()) if callable(made)}


def main() -> None:
    name, *args = sys.argv[1:]
    PROGRAMS[name](*args)


if __name__ == "__main__":
    main()
