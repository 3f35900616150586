"""Process(env=, preload=): what a process has before it imports anything."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import procflow
from tests.contract import functions_workers as w
from tests.support import DEADLOCK

NAME = "PROCFLOW_TEST_GPU"


def started(process: Any) -> Any:
    with process:
        return process.result(DEADLOCK)


def test_a_process_has_the_environment_that_it_was_given(
    ctx: procflow.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROCFLOW_TEST_OTHER", "inherited")
    given = {NAME: "3"}
    process = ctx.Process(target=w.variable, args=(NAME,), env=given)
    given[NAME] = "changed since"
    assert started(process) == "3"
    assert started(ctx.Process(target=w.variable, args=("PROCFLOW_TEST_OTHER",), env={NAME: "3"})) == "inherited"
    assert started(ctx.Process(target=w.variable, args=("PROCFLOW_TEST_OTHER",), env={"PROCFLOW_TEST_OTHER": ""})) == ""
    assert NAME not in os.environ
    assert started(ctx.Process(target=w.variable, args=(NAME,))) is None


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_the_environment_is_there_before_an_import(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reads_env_in_process.py").write_text(f"import os\nKEPT = os.environ.get({NAME!r})")
    monkeypatch.syspath_prepend(tmp_path)
    process = procflow.get_context(method).Process(
        target=w.kept_at_import, args=("reads_env_in_process",), env={NAME: "4"}
    )
    assert started(process)[0] == "4"


def test_a_preloaded_module_is_imported_once_in_the_fork_server(tmp_path: Path) -> None:
    (tmp_path / "preloaded.py").write_text("import os\nKEPT = os.getpid()")
    program = f"""
    import sys
    sys.path.insert(0, {str(tmp_path)!r})
    import procflow
    from procflow.start.server import the_server
    from tests.contract import functions_workers as w
    Process = procflow.get_context("forkserver").Process
    told = []
    for preload in (["preloaded"], []):
        with Process(target=w.kept_at_import, args=("preloaded",), preload=preload) as process:
            told.append(process.result())
    (first, one), (second, other) = told
    print(first == second == the_server.pid, one != other)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLOCK, check=False)
    assert (done.returncode, done.stdout) == (0, "True True\n"), done.stderr


def test_preload_is_a_hint(ctx: procflow.Context) -> None:
    assert started(ctx.Process(target=w.variable, args=(NAME,), preload=("no_such_module",))) is None


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"env": [("A", "1")]}, TypeError),
        ({"env": {"A": 1}}, TypeError),
        ({"env": {"A=": "1"}}, ValueError),
        ({"env": {"": "1"}}, ValueError),
        ({"env": {"A": "\0"}}, ValueError),
        ({"preload": "numpy"}, TypeError),
        ({"preload": ""}, TypeError),
        ({"preload": None}, TypeError),
        ({"preload": [1]}, TypeError),
        ({"preload": [""]}, ValueError),
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(wrong))):
        procflow.Process(target=print, **wrong)
