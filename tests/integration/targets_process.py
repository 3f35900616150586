"""What the children of the Process and launch tests run: module-level, so that every start method can find it."""

from __future__ import annotations

import atexit
import faulthandler
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import procflow
from procflow.process import ForkProcess, ForkServerProcess, Process, SpawnProcess
from tests.support import DEADLOCK


class Doubler(Process):
    """A subclass that overrides run()."""

    def __init__(self, number: int, answer: Any) -> None:
        super().__init__()
        self.number, self.answer = number, answer

    def run(self) -> None:
        self.answer.send(self.number * 2)


class Forgetful(Process):
    """A subclass that does not call the constructor of its base."""

    def __init__(self) -> None:
        self.number = 1


class _Square:
    """Mixed into the Process of each start method: run() returns something."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def run(self) -> int:
        return self.number**2


class SquareByFork(_Square, ForkProcess[int]):
    pass


class SquareBySpawn(_Square, SpawnProcess[int]):
    pass


class SquareByForkServer(_Square, ForkServerProcess[int]):
    pass


SquareBy: dict[str, Any] = {"fork": SquareByFork, "spawn": SquareBySpawn, "forkserver": SquareByForkServer}


def nothing() -> None:
    pass


def returns(value: object) -> object:
    return value


def returns_bytes(nbytes: int) -> bytes:
    return b"x" * nbytes


def returns_arrays() -> object:
    import numpy

    return numpy.arange(300_000), numpy.ones(1, dtype=int), numpy.zeros((200, 300), dtype="float32")


def returns_a_lock() -> object:
    return threading.Lock()


def returns_a_closure(number: int) -> Any:
    return lambda other: number + other


def returns_and_dies_at_exit() -> str:
    atexit.register(os.kill, os.getpid(), signal.SIGKILL)
    return "done"


def forks_and_returns() -> str:
    pid = os.fork()
    if pid == 0:
        return "a fork of it"
    os.waitpid(pid, 0)
    return "the process itself"


def closes_all_and_opens(path: str) -> str:
    os.closerange(3, 256)
    while (fd := os.open(path, os.O_CREAT | os.O_RDWR)) < 64:
        pass
    os.pwrite(fd, b"mine", 0)
    return "not to be written there"


def keeps_grandchildren(answer: Any) -> None:
    first = subprocess.Popen([sys.executable, "-c", "import subprocess, sys; subprocess.run(['sleep', '600'])"])
    second = Process(target=time.sleep, args=(600,))
    second.start()
    answer.send([first.pid, second.pid])
    time.sleep(600)


def raises() -> None:
    raise ValueError("from the child")


def exits(code: object) -> None:
    sys.exit(code)  # type: ignore[arg-type]


def kills_itself(signum: int) -> None:
    faulthandler.disable()  # pytest's; a fork has it
    os.kill(os.getpid(), signum)
    time.sleep(60)


def blocks(ready: Any) -> None:
    ready.send(os.getpid())
    threading.Event().wait()


def refuses_sigterm(ready: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    blocks(ready)


def sends_args(answer: Any, *args: object, **kwargs: object) -> None:
    answer.send((args, kwargs))


def describes_itself(answer: Any) -> None:
    current, parent = multiprocessing.current_process(), multiprocessing.parent_process()
    assert parent is not None
    answer.send(
        {
            "pid": os.getpid(),
            "name": current.name,
            "daemon": current.daemon,
            "authkey": bytes(current.authkey),
            "parent_pid": parent.pid,
            "parent_name": parent.name,
            "parent_alive": parent.is_alive(),
            "method": procflow.get_start_method(),
            "stdin": os.read(0, 1),
        }
    )


def surroundings(answer: Any) -> None:
    mask = os.umask(0)
    os.umask(mask)
    answer.send((os.environ.get("PROCFLOW_TEST"), os.getcwd(), mask, list(sys.argv), list(sys.path)))


def starts_a_child(answer: Any) -> None:
    child = Process(target=nothing)
    try:
        child.start()
    except BaseException as error:
        answer.send((type(error).__name__, str(error)))
    else:
        child.join()
        answer.send(("exitcode", child.exitcode))


def uses_everything(lock: Any, queue: Any, event: Any, value: Any, array: Any, semaphore: Any, connection: Any) -> None:
    with lock, semaphore:
        value.value += 1
        array[0] = 7
    queue.put("through the queue")
    connection.send("through the pipe")
    event.set()


def leaves_a_grandchild(answer: Any) -> None:
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    answer.send(pid)


def writes(text: str) -> None:
    print(text)
    print(text, file=sys.stderr)


# Entries for start.launch: function(payload, fds) -> exit code


def echo(payload: bytes | memoryview, fds: list[int]) -> int:
    os.write(fds[0], b"%d bytes, %d fds" % (len(payload), len(fds)))
    return 7


def modules(payload: bytes | memoryview, fds: list[int]) -> int:
    os.write(fds[0], " ".join(sys.modules).encode())
    return 0


def identity(payload: bytes | memoryview, fds: list[int]) -> int:
    import multiprocessing as late

    parent = late.parent_process()
    assert parent is not None
    current = late.current_process()
    os.write(fds[0], f"{current.name} {current.daemon} {parent.pid} {parent.is_alive()}".encode())
    return 0


def spin(payload: bytes | memoryview, fds: list[int]) -> int:
    """Stay in one C call that holds the GIL."""
    os.write(fds[0], b"%d\n" % os.getpid())
    os.close(fds[0])
    return sum(range(10**12))


def spin_in_children(method: str, write: int) -> None:
    """Start three bound children, then stay in a C call that holds the GIL."""
    from procflow.start.launch import launch

    children = [launch(method, f"{__name__}:spin", b"", [write], name="spin", bound=True) for _ in range(3)]
    assert all(child.pid for child in children)
    os.close(write)
    sum(range(10**12))


# For the tests themselves


def wait_gone(pids: list[int]) -> None:
    """Wait until none of these runs. They are not our children, so there is nothing to wait on."""
    deadline = time.monotonic() + DEADLOCK
    for pid in pids:
        while runs(pid):
            assert time.monotonic() < deadline, f"{pid} still runs"
            time.sleep(0.001)


def runs(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
