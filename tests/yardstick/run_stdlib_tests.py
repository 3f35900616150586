"""Run the interpreter's own multiprocessing tests on procflow.

    python tests/yardstick/run_stdlib_tests.py [-v] METHOD [CLASS or CLASS.test ...]

METHOD is fork, spawn or forkserver, or all: the three side by side, as they mostly wait. Without classes, all of
`CLASSES` run, less what `SKIPPED` gives a reason for.
"""

from __future__ import annotations

import os
import sys
import unittest
from pathlib import Path

from side_by_side import run_all

# Names of the classes in test/_test_multiprocessing.py, without their leading underscore. Each runs in the flavour
# "WithProcesses..." (and as it is, where it has no flavours).
CLASSES = (
    "TestProcess",
    "TestSubclassingProcess",
    "TestQueue",
    "TestLock",
    "TestSemaphore",
    "TestCondition",
    "TestEvent",
    "TestBarrier",
    "TestValue",
    "TestArray",
    "TestHeap",
    "TestSharedCTypes",
    "TestSharedMemory",
    "TestFinalize",
    "TestLogging",
    "TestWait",
    "TestFlags",
    "TestStartMethod",
    "TestSimpleQueue",
    "TestIgnoreEINTR",
    "TestNoForkBomb",
    "TestCloseFds",
    "TestStdinBadfiledescriptor",
    "TestSyncManagerTypes",
    "TestPool",
    "TestPoolWorkerErrors",
    "TestPoolWorkerLifetime",
    "TestPoolNotLeakOnFailure",
    "TestInitializers",
    "TestTimeouts",
    "TestConnection",
    "TestPoll",
    "TestPicklingConnections",
)

# "Class.test" -> why procflow does otherwise, on purpose.
SKIPPED: dict[str, str] = {
    "TestPool.test_make_pool": "looks into the private list of workers",
    "TestPool.test_map_unplicklable": "what a reduction raised is the cause of a PicklingError",
    "TestPool.test_resource_warning": "sets a private state; procflow's ResourceWarning is tested in tests/contract",
    "TestPool.test_traceback": "the cause is procflow.RemoteTraceback, with the same `tb`",
    "TestPoolWorkerErrors.test_unpickleable_result": "a lambda can be returned",
    "TestPoolWorkerLifetime.test_pool_worker_lifetime": "looks into the private list of workers",
    "TestStartMethod.test_get_all": "the default method comes first (as in 3.14), and procflow's is forkserver",
}


def main(arguments: list[str]) -> int:
    """Run; the exit code."""
    verbosity = 2 if "-v" in arguments else 1
    method, *chosen = [argument for argument in arguments if argument != "-v"]
    if method == "all":
        return run_all(__file__, chosen)
    here = str(Path(__file__).resolve().parent)
    sys.path.insert(0, here)  # children find stdlib_cases by the sys.path they are given
    os.environ["PROCFLOW_YARDSTICK_METHOD"] = method
    import stdlib_cases

    suite = unittest.TestSuite()
    for case in vars(stdlib_cases).values():
        if isinstance(case, type) and issubclass(case, unittest.TestCase):
            tests = unittest.defaultTestLoader.loadTestsFromTestCase(case)
            suite.addTests(test for test in tests if wanted(test, chosen))
    result = unittest.TextTestRunner(verbosity=verbosity).run(suite)
    return 0 if result.wasSuccessful() else 1


def wanted(test: unittest.TestCase, chosen: list[str]) -> bool:
    """Whether `test` is among the chosen, or by default among CLASSES; those in SKIPPED are marked so."""
    name, method = type(test).__name__.removeprefix("WithProcesses"), test.id().rpartition(".")[2]
    if not (name in chosen or f"{name}.{method}" in chosen if chosen else name in CLASSES):
        return False
    reason = SKIPPED.get(f"{name}.{method}")
    if reason is not None:
        setattr(test, method, unittest.skip(reason)(getattr(type(test), method).__get__(test)))
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
