"""Run the interpreter's own tests of ProcessPoolExecutor on procflow's PoolExecutor.

    python tests/yardstick/run_executor_tests.py [-v] METHOD [CLASS or CLASS.test ...]

METHOD is fork, spawn or forkserver, or all. Needs a Python that comes with `test.test_concurrent_futures` as a package,
as 3.12 and later do unless their tests were left out.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import unittest
from concurrent import futures

from side_by_side import run_all

from procflow import PoolExecutor

MODULES = ("test_process_pool", "test_wait", "test_as_completed", "test_shutdown", "test_init")
PREFIXES = {"fork": "ProcessPoolFork", "spawn": "ProcessPoolSpawn", "forkserver": "ProcessPoolForkserver"}

# The test, wherever it is -> why PoolExecutor does otherwise, on purpose.
WORKERS = "looks into the private dict of processes"
THREADS = "looks at the private manager thread and queue; tests/contract/test_executor.py tests the same"
SKIPPED: dict[str, str] = {
    "ProcessPoolExecutorTest.test_killed_child": "the executor is not broken by a death; tests/contract has that",
    "ProcessPoolExecutorTest.test_traceback": "the cause is procflow.RemoteTraceback, with the same `tb`",
    "ProcessPoolExecutorTest.test_saturation": WORKERS,
    "ProcessPoolExecutorTest.test_idle_process_reuse_one": WORKERS,
    "ProcessPoolExecutorTest.test_idle_process_reuse_multiple": WORKERS,
    "ProcessPoolExecutorTest.test_max_tasks_per_child": WORKERS,
    "ProcessPoolExecutorTest.test_max_tasks_per_child_defaults_to_spawn_context": "the default context does",
    "ProcessPoolExecutorTest.test_python_finalization_error": "no thread of ours is started after the first",
    "ProcessPoolExecutorTest.test_force_shutdown_workers": WORKERS,
    "ProcessPoolExecutorTest.test_force_shutdown_workers_dead": WORKERS,
    "ProcessPoolExecutorTest.test_force_shutdown_workers_not_started_yet": WORKERS,
    "ProcessPoolExecutorTest.test_force_shutdown_workers_stops_pool": WORKERS,
    "ExecutorShutdownTest.test_cancel_futures": "expects some to have begun; ours cancels the rest",
    "ProcessPoolShutdownTest.test_processes_terminate": WORKERS,
    "ProcessPoolShutdownTest.test_context_manager_shutdown": WORKERS,
    "ProcessPoolShutdownTest.test_del_shutdown": THREADS,
    "ProcessPoolShutdownTest.test_shutdown_no_wait": THREADS,
    "ProcessPoolShutdownTest.test_submit_after_interpreter_shutdown": "exit functions may still submit; it is all done",
    "FailingInitializerMixin.test_initializer": "the executor is not broken by it; tests/contract has that",
}


def load(method: str) -> unittest.TestSuite:
    """Import the tests with PoolExecutor in the place of ProcessPoolExecutor, and choose those of this start method."""
    futures.ProcessPoolExecutor = PoolExecutor  # type: ignore[misc,assignment]
    package = "test.test_concurrent_futures"
    shutdown = importlib.import_module(f"{package}.test_shutdown")
    assert_python_ok = shutdown.assert_python_ok

    def assert_ours_ok(option: str, program: str) -> object:
        program = program.replace("from concurrent.futures import PoolExecutor", "from procflow import PoolExecutor")
        return assert_python_ok(option, program, __isolated=False, PYTHONPATH=os.environ.get("PYTHONPATH", ""))

    shutdown.assert_python_ok = assert_ours_ok  # type: ignore[attr-defined]
    suite = unittest.TestSuite()
    for name in MODULES:
        module = importlib.import_module(f"{package}.{name}")
        for case in vars(module).values():
            if isinstance(case, type) and issubclass(case, unittest.TestCase) and is_for(method, case):
                suite.addTests(unittest.defaultTestLoader.loadTestsFromTestCase(case))
    return suite


def is_for(method: str, case: type) -> bool:
    """ProcessPoolForkserver... begins with ProcessPoolFork, too: the longest prefix that fits is meant."""
    fitting = [name for name, prefix in PREFIXES.items() if case.__name__.startswith(prefix)]
    return max(fitting, key=len, default=None) == method


def wanted(test: unittest.TestCase, chosen: list[str]) -> bool:
    """Whether `test` is among the chosen; those in SKIPPED are marked so."""
    method = test.id().rpartition(".")[2]
    if chosen and not {type(test).__name__, f"{type(test).__name__}.{method}"} & set(chosen):
        return False
    for base in type(test).__mro__:
        reason = SKIPPED.get(f"{base.__name__}.{method}")
        if reason is not None:
            setattr(test, method, unittest.skip(reason)(getattr(type(test), method).__get__(test)))
    return True


def main(arguments: list[str]) -> int:
    """Run; the exit code."""
    method, *chosen = [argument for argument in arguments if argument != "-v"]
    if importlib.util.find_spec("test.test_concurrent_futures") is None:
        print(f"{sys.executable} was installed without the tests of concurrent.futures: nothing to run")
        return 0
    if method == "all":
        return run_all(__file__, [argument for argument in arguments if argument != "all"])
    from test import support

    support.use_resources = ["walltime", "cpu"]  # as `python -m test -u` would
    suite = unittest.TestSuite(test for test in load(method) if wanted(test, chosen))  # type: ignore[arg-type]
    result = unittest.TextTestRunner(verbosity=2 if "-v" in arguments else 1).run(suite)
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
