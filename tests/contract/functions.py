"""What the workers of the contract tests run. It imports little."""

import copyreg
import itertools
import os
import signal
import subprocess
import sys
import threading

state = []  # a worker's own: what its initializer has left
kept = []  # a worker's own


def double(x):
    return x * 2


def add(x, y=0):
    return x + y


def fail(x):
    raise ValueError(x)


def odd_fails(x):
    if x % 2:
        raise ValueError(x)
    return x


def pid(_=None):
    return os.getpid()


def wait_for(path):
    """Wait until the file is there: a gate that a test opens."""
    while not os.path.exists(path):
        threading.Event().wait(0.002)
    return path


def tell_and_wait_for(begun, path):
    """Make a file, then wait for another."""
    with open(begun, "x"):
        return wait_for(path)


def note(path, text):
    with open(path, "a") as file:
        file.write(text + "\n")


def remember(*values):
    state[:] = values


def recall(_=None):
    return list(state)


def log_start(path):
    note(path, str(os.getpid()))


def fail_to_initialize():
    raise RuntimeError("no such luck")


def leave_at_once():
    os._exit(7)


def die(how):
    if how == "os._exit":
        os._exit(3)
    elif how == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "sys.exit":
        sys.exit(3)
    elif how == "segfault":
        import ctypes
        import faulthandler
        import resource

        faulthandler.disable()  # pytest's, inherited by fork
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        ctypes.string_at(0)


def die_at(victim, how, x):
    if x == victim:
        die(how)
    return x


def return_lock(_=None):
    return threading.Lock()


def raise_lock(_=None):
    raise ValueError(threading.Lock())


class Stubborn(Exception):
    """Its constructor refuses what is pickled."""

    def __init__(self, a, b):
        super().__init__(a)


def raise_stubborn(_=None):
    copyreg.dispatch_table.pop(Stubborn, None)  # Dask, where it was imported, has exceptions rebuilt without it
    raise Stubborn(1, 2)


def return_exception(_=None):
    return ValueError("returned, not raised")


def die_once(path):
    if os.path.exists(path):
        return "survived"
    note(path, "tried")
    die("SIGKILL")


def sleep(seconds):
    """Wait without using the processor; `state` is no gate, as nobody opens it."""
    threading.Event().wait(seconds)
    return seconds


def spin(_=None):
    while True:
        pass


def hold_the_gil(_=None):
    """A C function that runs for minutes and lets no other thread of this process run."""
    return sum(itertools.repeat(1, 10**11))


def count_runs(path):
    """Return how often this was called with this path."""
    with open(path, "ab") as file:
        file.write(b"x")
        return file.tell()


def fails_until(path, runs):
    """Raise ValueError until it was called so often."""
    count = count_runs(path)
    if count < runs:
        raise ValueError(count)
    return count


def fails_once_and_doubles(numbered):
    number, path = numbered
    fails_until(path, 2)
    return 2 * number


def dies_until(path, runs):
    count = count_runs(path)
    if count < runs:
        os._exit(3)
    return count


def hangs_until(path, runs):
    count = count_runs(path)
    if count < runs:
        spin()
    return count


def start_a_child_and_spin(path):
    """Have a process below this one, and do not end."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    note(path, str(child.pid))
    spin()


def ignore_sigterm_and_spin(path):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(path, "ignored")
    spin()


def keep(mebibytes):
    """Keep so much memory; return whose it is, and how much it has kept."""
    kept.append(b"x" * (mebibytes << 20))
    return os.getpid(), sum(map(len, kept)) >> 20


def use(mebibytes):
    """Use so much memory while it runs."""
    block = b"x" * (mebibytes << 20)
    return os.getpid() if block else None


class Holder:
    """Has one attribute."""

    def __init__(self, lock):
        self.lock = lock


def return_a_lock_inside():
    return [Holder(threading.Lock())]


class HangsWhenUnpickled:
    """Rebuilding it does not end."""

    def __reduce__(self):
        return spin, ()


def exits_until(path, runs):
    count = count_runs(path)
    if count < runs:
        sys.exit(3)
    return count


def raises_once_then_dies_once(numbered):
    number, path = numbered
    if path is not None:
        count = count_runs(path)
        if count == 1:
            raise ValueError(count)
        if count == 2:
            os._exit(3)
    return number


def raises_then_dies(numbered):
    number, path = numbered
    if path is not None:
        if count_runs(path) % 2:
            raise ValueError(number)
        os._exit(3)
    return number


def retries_inside(path, other):
    """Use a pool with retries, and fail as often as told."""
    from procflow import Pool

    with Pool(engine="serial") as pool:
        assert pool.options(retries=5).apply(fails_until, (other, 3)) >= 3
    return fails_until(path, 3)


def is_int(value):
    return isinstance(value, int)


class KillsWhenUnpickled:
    """Rebuilding it ends the process, where that is not the pool's own."""

    def __init__(self, parent):
        self.parent = parent

    def __reduce__(self):
        return die_elsewhere, (self.parent,)


def die_elsewhere(parent):
    if os.getpid() != parent:
        os._exit(3)
    return KillsWhenUnpickled(parent)
