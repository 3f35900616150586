"""What the workers of the logging tests run. It does not import logging: its functions do."""

import os
import signal
import sys
import threading

kept = []  # a worker's own


def logger():
    import logging

    return logging.getLogger("tests.logged")


def double(x):
    return 2 * x


def warn(n):
    logger().warning("at %d", n)
    return n


def warn_often(count):
    for n in range(count):
        logger().warning("%d", n)


def debug():
    logger().debug("fine detail")
    return logger().isEnabledFor(10)


def log_exception_and_raise():
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        logger().exception("as expected")
    raise LookupError("and on")


def log_a_lock():
    lock = threading.Lock()
    logger().warning("a lock: %s", lock, extra={"extra_lock": lock, "extra_number": 7})


def warn_and_die():
    logger().warning("the last words")
    os.kill(os.getpid(), signal.SIGKILL)


def warn_in_threads(n):
    def run(t):
        for k in range(100):
            logger().warning("%d %d %d", n, t, k)

    threads = [threading.Thread(target=run, args=[t]) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return n


def warn_in_a_fork():
    logger().warning("in the worker")
    if (child := os.fork()) == 0:
        logger().warning("in its fork")
        os._exit(0)
    return os.waitpid(child, 0)[1]


def keep_records():
    import logging

    class Keeping(logging.Handler):
        def emit(self, record):
            kept.append(record.getMessage())

    logger().warning("from the initializer")
    logger().addHandler(Keeping())


def kept_messages():
    return kept


def has_logging():
    return "logging" in sys.modules


def print_and_warn(n):
    import warnings

    print("out", n)
    print("err", n, file=sys.stderr)
    warnings.simplefilter("always")  # whatever the test runner wants of them
    warnings.warn(f"warn {n}", stacklevel=1)
    return n


def print_and_raise(n):
    print("out", n)
    raise ValueError(n)
