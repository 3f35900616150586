"""The interpreter's own multiprocessing tests, made to test procflow: this module has their classes.

It is imported by the runner and by the children of the tests, so in each of them `multiprocessing.Process` and its
like are procflow's before the interpreter's test module binds them.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.context
import multiprocessing.forkserver
import os

from procflow import context
from procflow.start.server import the_server

METHOD = os.environ["PROCFLOW_YARDSTICK_METHOD"]

# What the tests take from the multiprocessing module, and get from procflow's default context instead.
FROM_PROCFLOW = (
    "Process",
    "Pool",
    "Pipe",
    "get_context",
    "get_start_method",
    "set_start_method",
    "get_all_start_methods",
    "set_executable",
    "set_forkserver_preload",
    "Manager",
    "Lock",
    "RLock",
    "Condition",
    "Semaphore",
    "BoundedSemaphore",
    "Event",
    "Barrier",
    "Queue",
    "JoinableQueue",
    "SimpleQueue",
    "Value",
    "Array",
    "RawValue",
    "RawArray",
)
for _name in FROM_PROCFLOW:
    setattr(multiprocessing, _name, getattr(context.default_context, _name))


class _OurServer:
    """Stands in for multiprocessing.forkserver._forkserver, which the tests kill and watch."""

    @property
    def _forkserver_pid(self) -> int | None:
        return the_server.pid

    def ensure_running(self) -> None:
        the_server.ensure_running()

    def _stop(self) -> None:
        the_server.stop()


multiprocessing.forkserver._forkserver = _OurServer()

from test import _test_multiprocessing as stdlib_tests  # noqa: E402 - only now

stdlib_tests.install_tests_in_module_dict(globals(), METHOD)
