"""Every example in a docstring of procflow runs and prints what it says, each module in an interpreter of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
DEADLOCK = 100.0
RUNNER = """\
import doctest, importlib, sys

if __name__ == "__main__":
    module = importlib.import_module(sys.argv[1])
    failed, attempted = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    print(attempted, "examples")
    sys.exit(failed > 0)
"""


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


MODULES = sorted(name_of(path) for path in SOURCE.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))


def test_there_are_examples() -> None:
    assert "procflow.cpu" in MODULES


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_print_what_they_say(module: str, tmp_path: Path) -> None:
    runner = tmp_path / "run_examples.py"  # a real file, so that children can find its `__main__`
    runner.write_text(RUNNER)
    done = subprocess.run(
        [sys.executable, str(runner), module],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLOCK,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^[1-9]\d* examples$", done.stdout, re.MULTILINE), done.stdout
