"""Run joblib's own tests of parallel backends on procflow's backend.

    python tests/yardstick/run_joblib_tests.py [PYTEST OPTIONS]

Their module is copied with "procflow" in the place of joblib's process backends, and those of its tests run that have
to do with it, less what `SKIPPED` gives a reason for.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import joblib.test

# A part of the test's name -> why it is left out.
LOOKS_INSIDE = "looks into joblib's own pools"
SKIPPED = {
    "test_parallel_as_context_manager": LOOKS_INSIDE,
    "test_memmapping_leaks": "looks at the files of joblib's memmaps; procflow has none",
    "test_auto_memmap_on_arrays_from_generator": "wants numpy.memmap; tests/contract/test_joblib.py shares arrays",
    "test_nested_parallel_warnings": "joblib's backends warn that they can't be nested; this one can",
    "test_backend_context_manager": LOOKS_INSIDE,
    "test_error_capture": LOOKS_INSIDE,
    "test_nested_loop": "workers of other backends do not know the name; tests/contract/test_joblib.py nests",
    "test_parallel_with_interactively_defined_functions": "runs a program that does not register the backend",
    "test_parallel_with_unpicklable_functions_in_args": "runs a program that does not register the backend",
}

REPLACED = {
    'PROCESS_BACKENDS = ["multiprocessing", "loky"]': 'PROCESS_BACKENDS = ["procflow"]',
    'PARALLEL_BACKENDS = PROCESS_BACKENDS + ["threading"]': "PARALLEL_BACKENDS = PROCESS_BACKENDS",
    '@parametrize("backend", ["loky", "multiprocessing", "threading"])': '@parametrize("backend", ["procflow"])',
}

PREAMBLE = "from __future__ import annotations\n\nimport procflow.joblib\n\nprocflow.joblib.register()\n"


def main(arguments: list[str]) -> int:
    """Run; the exit code."""
    source = (Path(joblib.test.__file__).parent / "test_parallel.py").read_text(encoding="utf-8")
    for theirs, ours in REPLACED.items():
        assert theirs in source, f"joblib {joblib.__version__} has no line {theirs!r}: look at what its tests do now"
        source = source.replace(theirs, ours)
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "conftest.py").write_text(PREAMBLE, encoding="utf-8")
        Path(directory, "test_parallel_on_procflow.py").write_text(source, encoding="utf-8")
        chosen = " and ".join(["(procflow or Procflow)", *(f"not {name}" for name in SKIPPED)])
        options = ["-q", "-p", "no:cacheprovider", "--timeout", "120", "-c", os.devnull, "--rootdir", directory]
        command = [sys.executable, "-m", "pytest", *options, "-k", chosen, *arguments, "test_parallel_on_procflow.py"]
        return subprocess.call(command, cwd=directory, env={**os.environ, "PYTHONPATH": path()})


def path() -> str:
    """Return what the tests need to import: procflow, wherever this run finds it."""
    import procflow

    return str(Path(procflow.__file__).parents[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
