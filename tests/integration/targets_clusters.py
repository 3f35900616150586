"""What the workers of clusters run in the tests, and a program that uses one."""

import os
import signal
import sys
import threading


def die(_=None):
    os.kill(os.getpid(), signal.SIGKILL)


def tell_and_die(path):
    with open(path, "x"):
        die()


def tell_and_wait_for(begun, path):
    """Make a file, then wait for another."""
    with open(begun, "w") as file:
        file.write(str(os.getpid()))
    while not os.path.exists(path):
        threading.Event().wait(0.002)
    return path


def meet_and_tell(folder, number):
    """Wait until so many tasks run; return which this is."""
    from procflow import current_task

    with open(os.path.join(folder, str(current_task().seed)), "x"):
        pass
    while len(os.listdir(folder)) < number:
        threading.Event().wait(0.002)
    return current_task()


def die_at(victim, x):
    if x == victim:
        die()
    return x


def die_once(path):
    if os.path.exists(path):
        return "survived"
    tell_and_die(path)


def double(x):
    return 2 * x


def pid(_=None):
    return os.getpid()


def sum_of(array):
    return float(array.sum())


def ones(count):
    import numpy

    return numpy.ones(count)


class Own:
    """A class of the program, if this is one."""

    def __init__(self, x):
        self.x = x


def make_own(x):
    return Own(x)


def main(address):
    from procflow import Pool
    from procflow.engines import DaskEngine

    with Pool(engine=DaskEngine(address)) as pool:
        made = pool.map(make_own, [1, 2])
        print([isinstance(own, Own) for own in made], [own.x for own in made])
        print(pool.map(lambda own: own.x + 1, made))


if __name__ == "__main__":
    main(sys.argv[1])
