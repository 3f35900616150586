"""Every benchmark runs, and says what it found in the shape that the pages are made of. How fast is never looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# Those which ask all peers; the others take minutes, or have tests of their own.
FILES = sorted(file for file in BENCHMARKS.glob("[a-z]*.py") if "import Question, run" in file.read_text("utf-8"))
ALWAYS_THERE = "procflow,multiprocessing.Pool"
DEADLOCK = 110.0


def run(file: Path, figures: Path, *more: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(file), "--quick", "--json", str(figures), *more],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(BENCHMARKS)])},
        check=False,
        timeout=DEADLOCK,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(figures.read_text("utf-8"))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_a_benchmark_gives_a_figure_for_each_peer_that_is_there(file: Path, tmp_path: Path) -> None:
    found = run(file, tmp_path / "figures.json", "--peers", ALWAYS_THERE)
    assert found["about"].strip()
    machine = found["machine"]
    assert {"python", "platform", "processor", "cpus", "load", "command", "versions"} <= machine.keys()
    assert machine["command"] == f"python benchmarks/{file.name} --quick --peers {ALWAYS_THERE}"
    assert found["results"]
    for result in found["results"]:
        assert result["failed"] == {}, result["question"]
        assert next(iter(result["values"])) == "procflow"
        assert all(len(taken) == 1 and isinstance(taken[0], float) for taken in result["values"].values())
        assert result["better"] in ("lower", "higher")
        assert result["unit"]


@pytest.mark.slow
def test_the_starts_say_what_they_found_in_the_same_shape(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "starts.py"), "--rounds", "1", "--only", "process", "--json", str(figures)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(BENCHMARKS)])},
        check=False,
        timeout=DEADLOCK,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(figures.read_text("utf-8"))["results"]
    assert [result["question"] for result in results] == [
        f"a Process comes and goes, warm, {method}" for method in ("fork", "spawn", "forkserver")
    ]
    for result in results:
        assert list(result["values"]) == ["procflow", "multiprocessing.Process"]
        assert (result["unit"], result["better"], result["failed"]) == ("s", "lower", {})


PROGRAM = """
'''A peer that hangs, one that dies, and one that answers.'''
import os, subprocess, sys, threading
from pathlib import Path
from _hosts import Question, run

def measure(peer, count):
    if peer.name == "procflow":
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
        Path(os.environ["WHO"]).write_text(f"{os.getpid()} {child.pid}")
        threading.Event().wait()
    if peer.name == "ProcessPoolExecutor":
        os._exit(3)
    return float(peer.map(abs, [-count], 1)[0])

QUESTIONS = [Question("?", measure, 7, limit=3.0)]
if __name__ == "__main__":
    run(QUESTIONS)
"""


def test_a_peer_that_hangs_or_dies_has_no_figure_and_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, who = tmp_path / "hangs.py", tmp_path / "who"
    program.write_text(PROGRAM)
    monkeypatch.setenv("WHO", str(who))
    found = run(program, tmp_path / "figures.json", "--peers", f"{ALWAYS_THERE},ProcessPoolExecutor")
    (result,) = found["results"]
    assert result["failed"] == {
        "procflow": "no answer within the time limit",
        "ProcessPoolExecutor": "its process ended",
    }
    assert result["values"] == {"multiprocessing.Pool": [7.0]}
    assert [runs(pid) for pid in who.read_text().split()] == [False, False]


def runs(pid: str) -> bool:
    """Whether it is there, and no zombie that waits for whoever adopted it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_the_median_of_the_first_contestant_is_what_the_others_are_compared_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from _side_by_side import times_worse  # type: ignore[import-not-found]

    values = {"procflow": [2.0, 1.0, 9.0], "other": [4.0], "better": [1.0]}
    assert times_worse(values, "lower") == {"procflow": 1.0, "other": 2.0, "better": 0.5}
    assert times_worse(values, "higher") == {"procflow": 1.0, "other": 0.5, "better": 2.0}
