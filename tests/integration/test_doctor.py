"""`python -m procflow`: the commands there are; doctor's facts, its self-test, and that nothing makes it hang."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

import procflow
from procflow.doctor import machine, probes, runs
from tests.support import DEADLOCK, descendants, open_fds, wait_until

SOURCE = Path(procflow.__file__).parents[1]
pytestmark = pytest.mark.slow


def procflow_command(*arguments: str, python: tuple[str, ...] = (), **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *python, "-m", "procflow", *arguments],
        env={**os.environ, "PYTHONPATH": str(SOURCE), **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=4 * DEADLOCK,
    )


def facts(*python: str, before: str = "pass", **env: str) -> dict[str, Any]:
    """What `examine` finds in an interpreter of its own, which has run `before`."""
    code = f"import os, json, dataclasses; {before}; from procflow.doctor import machine; "
    code += "print(json.dumps(dataclasses.asdict(machine.examine())))"
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHON_CPU_COUNT"}
    done = subprocess.run(
        [sys.executable, *python, "-c", code],
        env={**inherited, "PYTHONPATH": str(SOURCE), **env},
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLOCK,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_commands_are_told() -> None:
    done = procflow_command("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "doctor" in done.stdout


@pytest.mark.parametrize(("arguments", "said"), [((), "Which command?"), (("fly",), "no command 'fly'")])
def test_a_command_that_is_not_there_is_refused(arguments: tuple[str, ...], said: str) -> None:
    done = procflow_command(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "doctor" in done.stderr


@pytest.mark.parametrize("limit", ["0", "-1", "nan", "soon"])
def test_a_limit_that_is_none_is_refused(limit: str) -> None:
    done = procflow_command("doctor", f"--limit={limit}")
    assert done.returncode == 2
    assert "--limit" in done.stderr


@pytest.mark.slow
def test_the_json_report_is_complete_and_good() -> None:
    done = procflow_command("doctor", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"], done.stderr) == (0, True, ""), done.stdout
    assert set(report) == {"ok", "machine", "self_test", "speed"}
    assert list(report["self_test"]) == list(procflow.get_all_start_methods())
    for checks in report["self_test"].values():
        assert [check["check"] for check in checks] == list(probes.CHECKS)
    assert set(report["speed"]) == set(probes.MEASURES)
    assert all(measured["value"] > 0 for measured in report["speed"].values())
    assert report["machine"]["procflow"] == procflow.__version__


@pytest.mark.slow
def test_the_text_report_names_every_check() -> None:
    done = procflow_command("doctor")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "procflow works here." in done.stdout
    for name in [*probes.CHECKS, *(name.replace("_", " ") for name in probes.MEASURES)]:
        assert name in done.stdout


def test_a_program_that_hangs_is_ended_and_the_report_says_where(tmp_path: Path) -> None:
    """Here the fork server never comes up: what the interpreter runs at its start waits there."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "if 'procflow.start.forkserver' in ' '.join(sys.orig_argv):\n"
        f"    open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        "    signal.pause()\n"
    )
    path = os.pathsep.join([str(tmp_path), str(SOURCE)])
    code = "import json; from procflow.doctor import probes, runs; "
    code += "print(json.dumps([[o.name, o.error] for o in runs.run_checks('forkserver', 3.0, probes.CHECKS)]))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=4 * DEADLOCK,
    )
    first, *others = json.loads(done.stdout)
    assert first[0] == "one task"
    assert "its limit is 3 s" in first[1]
    assert "in one_task" in first[1]  # the stack of where it hung
    assert [error for _, error in others] == ["not run"] * len(others)
    wait_until(lambda: not any("probes" in line for line in descendants().values()), "the end of all its processes")
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not psutil.pid_exists(pid), "the end of the fork server")


@pytest.mark.slow
def test_ctrl_c_ends_it_and_what_it_runs() -> None:
    program = subprocess.Popen(
        [sys.executable, "-m", "procflow", "doctor"],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert program.stdout is not None
    assert "Self-test\n" in iter(program.stdout.readline, "")
    wait_until(lambda: any("probes" in line for line in descendants().values()), "its first test")
    program.send_signal(signal.SIGINT)
    _, errors = program.communicate(timeout=DEADLOCK)
    assert (program.returncode, errors) == (130, "")


def test_a_machine_on_which_it_does_not_work_is_told_of(tmp_path: Path) -> None:
    """Two more descriptors than there are: a pool can't be opened."""
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (12, 12)); "
    code += "from procflow.__main__ import main; sys.exit(main(['doctor', '--json']))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
        timeout=4 * DEADLOCK,
    )
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"]) == (1, False)
    assert any("Too many open files" in (check["error"] or "") for check in report["self_test"]["spawn"])
    assert any("12 open files" in remark for remark in report["machine"]["remarks"])


def test_the_cpus_are_explained() -> None:
    by_variable = facts(PYTHON_CPU_COUNT="3")["cpus"]
    assert (by_variable["usable"], by_variable["why"]) == (3, "PYTHON_CPU_COUNT says so")
    by_option = facts("-X", "cpu_count=5", PYTHON_CPU_COUNT="3")["cpus"]
    assert (by_option["usable"], by_option["why"]) == (5, "-X cpu_count says so")


def test_a_number_of_cpus_that_is_none_is_a_remark() -> None:
    found = facts(before="os.environ['PYTHON_CPU_COUNT'] = 'many'")  # else Python 3.13 itself refuses to start
    assert found["cpus"]["usable"] is None
    assert any("PYTHON_CPU_COUNT='many'" in remark for remark in found["remarks"])


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or (os.cpu_count() or 1) < 2, reason="one processor")
def test_an_affinity_mask_is_told() -> None:
    one = next(iter(os.sched_getaffinity(0)))
    cpus = facts(before=f"os.sched_setaffinity(0, [{one}])")["cpus"]
    assert cpus["affinity"] == 1
    assert cpus["usable"] == 1
    assert "affinity mask" in cpus["why"]


def test_the_portable_ways_are_told() -> None:
    found = facts(PROCFLOW_PORTABLE="1")
    assert (found["kernel"]["packet_pipes"], found["memory"]["kind"]) == (False, "temporary file")
    assert any("PROCFLOW_PORTABLE" in remark for remark in found["remarks"])


def test_to_examine_leaves_nothing_open() -> None:
    before = open_fds()
    machine.examine()
    assert open_fds() == before


def test_a_worker_takes_no_more_descriptors_than_the_remark_counts(method: str) -> None:
    def held(workers: int) -> int:
        with procflow.get_context(method).Pool(workers) as pool:
            pool.map(big, range(4 * workers), 1)
            return len(open_fds())

    assert held(4) - held(1) <= 3 * machine.FDS_OF_A_WORKER


def big(number: int) -> bytes:
    return bytes(1 << 20)


def test_what_a_program_prints_beside_its_lines_is_passed_over() -> None:
    text = 'hello\n[1]\n{"step": "a"}\n{"step": "a", "value": 1.5, "error": null}\n{"step": "b"}\n'
    outcomes = runs._outcomes(text, "it died", ["a", "b", "c"])
    assert outcomes == [
        runs.Outcome("a", 1.5, None),
        runs.Outcome("b", None, "it died"),
        runs.Outcome("c", None, "not run"),
    ]
