"""The comparison of faults runs, judges from outside, and its table is on the page."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
DATA = ROOT / "docs" / "design" / "data" / "faults_of_peers.json"


def render() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_render_faults", BENCHMARKS / "_render_faults.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_pool_that_hangs_is_told_from_one_that_does_not(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, str(BENCHMARKS / "faults_of_peers.py"), "--rounds", "1", "--json", str(figures)]
    command += [
        "--peers",
        "procflow,multiprocessing.Pool",
        "--scenarios",
        "exits_at_once,returned_nul,parent_killed_busy",
    ]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(BENCHMARKS)])},
        check=False,
        timeout=110.0,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text("utf-8"))
    verdicts = {row["name"]: {name: cell["verdict"] for name, cell in row["cells"].items()} for row in found["rows"]}
    assert all(of_each["procflow"] == "passes" for of_each in verdicts.values()), verdicts
    assert verdicts["exits_at_once"]["multiprocessing.Pool"] == "hangs"
    assert verdicts["returned_nul"]["multiprocessing.Pool"] == "passes"
    assert "| passes" not in render().render(found)
    assert render().render(found).count("**hangs**") >= 1


def test_the_page_has_the_table_of_what_was_seen() -> None:
    data = json.loads(DATA.read_text("utf-8"))
    assert render().render(data) in (ROOT / "docs" / "design" / "faults.md").read_text("utf-8")
    for row in data["rows"]:
        assert row["cells"]["procflow"]["verdict"] == "passes", row["name"]
        test = row["test"]
        assert (ROOT / (test if "/" in test else f"tests/faults/{test}")).exists(), test
