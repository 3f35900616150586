"""What the workers of the contract tests run. It imports little."""

import os
import signal
import sys
import threading

state = []  # a worker's own: what its initializer has left


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
    raise Stubborn(1, 2)


def return_exception(_=None):
    return ValueError("returned, not raised")


def die_once(path):
    if os.path.exists(path):
        return "survived"
    note(path, "tried")
    die("SIGKILL")
