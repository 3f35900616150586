"""Processes that give their results, or say why there is none, and one that is stopped with what it has started.

python examples/process-result.py [spawn | fork | forkserver]
"""

import os
import signal
import subprocess
import sys
import threading

from procflow import Connection, Pipe, Process, ProcessDied, set_start_method


def count_primes(below: int) -> int:
    return sum(all(number % divisor for divisor in range(2, int(number**0.5) + 1)) for number in range(2, below))


def divide(dividend: int, divisor: int) -> float:
    return dividend / divisor


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def greet() -> str:
    return os.environ["GREETING"]


def start_another(started: Connection[int, int]) -> None:
    """Start a process of its own, and wait for ever."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started.send(child.pid)
    threading.Event().wait()


def main() -> None:
    with (
        Process(target=count_primes, args=[10_000]) as primes,
        Process(target=greet, env={"GREETING": "hello"}) as hello,
    ):
        print("primes:", primes.result(timeout=60.0))
        print("env:", hello.result(timeout=60.0))

    failing = Process(target=divide, args=[1, 0])
    failing.start()
    try:
        failing.result(timeout=60.0)
    except ZeroDivisionError as error:
        print("raised:", error)

    dying = Process(target=die)
    dying.start()
    try:
        dying.result(timeout=60.0)
    except ProcessDied as error:
        print("died: exit code", error.exitcode)

    reader, writer = Pipe(duplex=False)
    parent = Process(target=start_another, args=[writer])
    parent.start()
    child = reader.recv(timeout=60.0)
    parent.stop(grace=5.0)  # SIGTERM, then SIGKILL for what is left; the process that it has started, too
    print("stopped:", parent.exitcode, "and its child is", "there" if is_running(child) else "gone")


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"  # not a zombie, which waits to be noticed
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    if len(sys.argv) > 1:
        set_start_method(sys.argv[1])
    main()
