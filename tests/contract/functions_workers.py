"""What the workers of the tests of their options run. It imports little."""

import contextlib
import os
import sys
import threading

from procflow import NoCurrentTask, Pool, current_task, get_context
from tests.contract import functions as f


def task(_=None):
    return current_task()


def seed(_=None):
    return current_task().seed


def seed_after(seconds):
    """Take so long that chunks have all sizes."""
    f.sleep(seconds)
    return current_task().seed


def numbered(left, right):
    return current_task().index, left, right


def fails_before(attempt):
    if current_task().attempt < attempt:
        raise ValueError(attempt)
    return current_task()


def dies_before(attempt):
    if current_task().attempt < attempt:
        os._exit(3)
    return current_task()


def second_fails_once(_):
    now = current_task()
    if now.index == 1 and now.attempt == 1:
        raise ValueError(now)
    return now.index, now.attempt


def task_of_a_thread(_=None):
    found = []
    thread = threading.Thread(target=lambda: found.append(current_task()))
    thread.start()
    thread.join()
    return found[0], current_task()


def task_or_none(_=None):
    try:
        return current_task()
    except NoCurrentTask:
        return None


def tasks_of_a_pool_inside(_=None):
    before = current_task()
    with Pool(1, engine="serial", seed=1) as pool:
        inside = pool.map(task, range(3))
    return before, inside, current_task()


def task_of_a_process(method):
    process = get_context(method).Process(target=task_or_none)
    process.start()
    return process.result(30)


def keep_task():
    f.remember(task_or_none())


class AsksWhenPickled:
    """Its pickle has the task that runs while it is made."""

    def __reduce__(self):
        return list, ([task_or_none()],)


def return_who_asks(_):
    return AsksWhenPickled()


def meet(folder, number, names=()):
    """Wait until so many workers are here, and tell of this one."""
    os.close(os.open(os.path.join(folder, str(os.getpid())), os.O_CREAT | os.O_WRONLY))
    while len(os.listdir(folder)) < number:
        threading.Event().wait(0.002)
    return os.getpid(), current_task().worker, [os.environ.get(name) for name in names]


def processors(_=None):
    return sorted(os.sched_getaffinity(0))


def threads_of_numpy(_=None):
    import numpy
    import threadpoolctl

    assert (numpy.ones((9, 9)) @ numpy.ones((9, 9))).sum() == 9**3
    return {library["num_threads"] for library in threadpoolctl.threadpool_info()}


def variable(name):
    return os.environ.get(name)


def kept_at_import(name):
    """Return what a module has kept when it was imported, and this process."""
    return __import__(name).KEPT, os.getpid()


class Context:
    """Notes when it is entered and left."""

    def __init__(self, path, *, fails_at=None):
        self.path, self.fails_at = path, fails_at

    def __enter__(self):
        f.note(self.path, f"enter {os.getpid()}")
        if self.fails_at == "enter":
            raise ZeroDivisionError("no way in")

    def __exit__(self, *error):
        f.note(self.path, f"exit {os.getpid()}")
        if self.fails_at == "exit":
            raise ZeroDivisionError("no way out")


@contextlib.contextmanager
def holding(value):
    f.remember(*f.state, value)
    yield
    f.state.clear()


def leave(_=None):
    sys.exit(0)
