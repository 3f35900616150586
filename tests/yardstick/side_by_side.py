"""Run a yardstick for the three start methods side by side, as its tests mostly wait."""

from __future__ import annotations

import subprocess
import sys
import tempfile

METHODS = ("fork", "spawn", "forkserver")


def run_all(script: str, arguments: list[str]) -> int:
    """Run each method in a process of its own; print all of what failed, and the end of what passed.

    Args:
        script: The yardstick.
        arguments: Its arguments but for the method, which comes first.
    """
    runs = {}
    for method in METHODS:
        output = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed when the run has ended
        command = [sys.executable, script, method, *arguments]
        runs[method] = (subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT), output)
    failed = 0
    for method, (run, output) in runs.items():
        failed |= run.wait()
        output.seek(0)
        lines = output.read().splitlines()
        output.close()
        print(f"--- {method}", *(lines if run.returncode else lines[-3:]), sep="\n")
    return failed
