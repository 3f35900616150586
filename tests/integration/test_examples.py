"""Each program in examples/ does what it says, run as a user runs it, under every start method."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.clusters import needs

EXAMPLES = Path(__file__).parents[2] / "examples"
DEADLOCK = 60.0
DEFAULT = "the default"
METHODS = [DEFAULT, "spawn", "fork", "forkserver"] if sys.platform == "linux" else [DEFAULT, "spawn"]

every_start_method = pytest.mark.parametrize("method", METHODS)


def run(name: str, method: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / name), *([] if method == DEFAULT else [method]), *options]
    # Warnings are shown, but not as errors: they would end the helper processes of the standard library as well.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLOCK,
    )
    assert done.returncode == 0, done.stderr
    return done


@every_start_method
def test_three_processes_print_each_of_their_characters_and_end(method: str) -> None:
    done = run("process-base.py", method)
    assert Counter(done.stdout) == {"A": 20, "B": 20, "C": 20, "\n": 1}
    assert done.stdout.endswith("\n")
    assert done.stderr == ""


@every_start_method
def test_start_methods_tells_the_module_the_parent_and_the_process(method: str) -> None:
    done = run("start-methods.py", method)
    used = "forkserver" if method == DEFAULT and sys.platform == "linux" else method.replace(DEFAULT, "spawn")
    told = re.fullmatch(
        rf"start method: {used}\n"
        r"main\n  module name: __main__\n  parent process: (?P<parent>\d+)\n  process id: (?P<main>\d+)\n"
        r"child\n  module name: (?P<module>\w+)\n  parent process: (?P<over>\d+)\n  process id: (?P<child>\d+)\n",
        done.stdout,
    )
    assert told, done.stdout
    assert int(told["parent"]) == os.getpid()
    assert told["module"] == ("__main__" if used == "fork" else "__mp_main__")
    assert (told["over"] == told["main"]) == (used != "forkserver")  # there it is the fork server
    assert told["child"] not in (told["main"], told["over"])
    assert done.stderr == ""


@every_start_method
def test_a_pool_squares(method: str) -> None:
    done = run("pool-base.py", method)
    assert (done.stdout, done.stderr) == ("[0, 1, 4, 9, 16, 25]\n", "")


@every_start_method
def test_processes_give_their_results_or_say_why_there_is_none(method: str) -> None:
    done = run("process-result.py", method)
    assert done.stdout.splitlines() == [
        "primes: 1229",
        "env: hello",
        "raised: division by zero",
        "died: exit code -9",
        "stopped: -15 and its child is gone",
    ]


@every_start_method
def test_requests_and_responses_cross_a_pipe(method: str) -> None:
    done = run("pipe-channels.py", method)
    assert done.stdout.splitlines() == [
        "nothing to receive yet",
        "ready: True sum: 4",
        "sum of 8 MiB of zeros: 0",
        "from a coroutine: 4950",
        "the server has ended: 0",
    ]
    assert done.stderr == ""


@every_start_method
def test_a_script_without_a_guard_works(method: str) -> None:
    done = run("no-guard.py", method)
    assert (done.stdout, done.stderr) == ("[1, 2] True\n[0, 1, 4, 9, 16]\n42\n", "")


@pytest.mark.slow
@every_start_method
def test_random_points_give_one_estimate_however_many_workers_there_are(method: str) -> None:
    done = run("pool-seeds.py", method)
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("pi")] == [
        "pi is about 3.1442, by 1 workers",
        "pi is about 3.1442, by 3 workers",
    ]
    assert lines[:3] == ["a worker begins, one of 1", "a worker ends", "pi is about 3.1442, by 1 workers"]
    assert 1 <= lines.count("a worker begins, one of 3") == lines.count("a worker ends") - 1 <= 3
    assert done.stderr == ""


@every_start_method
def test_a_worker_says_hello_through_a_pipe(method: str) -> None:
    done = run("pool-pipe.py", method)
    assert (done.stdout, done.stderr) == ("Hello!\n", "")


@every_start_method
def test_a_killed_echo_worker_comes_back_while_the_server_stays(method: str) -> None:
    done = run("supervisor-echo.py", method)
    assert re.fullmatch(
        r"server: ready\n"
        r"worker: 3 echoes from server (?P<server>\d+)\n"
        r"the worker is killed\n"
        r"worker: crashed, exit code -9\n"
        r"worker: restarted\n"
        r"worker: 3 echoes from server (?P=server)\n"
        r"worker: stopped, exit code -15\n"
        r"server: stopped, exit code -15\n",
        done.stdout,
    ), done.stdout
    assert re.fullmatch(r"worker: crashed: died \(SIGKILL\) \(pid \d+\); restart in 0\.\d+ s\n", done.stderr), (
        done.stderr
    )


@pytest.mark.slow
@every_start_method
def test_tokens_are_counted_as_the_serial_loop_counts_them(method: str) -> None:
    done = run("token-count.py", method, "--limit", "40", "--processes", "2")
    used = r"\w+" if method == DEFAULT else method
    assert re.fullmatch(
        r"40 files of Python \S+, \d+\.\d MB\n"
        r"\d{4,} tokens in 40 files\n"
        r"(  [A-Z]+ +\d+\n){5}"
        r"0 files do not tokenize, and are not counted\n"
        rf"parallel: \d+\.\d\d s by 2 processes, start method {used}\n"
        r"serial:   \d+\.\d\d s, \d+\.\d\d times as long\n"
        r"equal: yes\n",
        done.stdout,
    ), done.stdout
    # Not a terminal: plain lines, one for each tenth.
    lines = done.stderr.splitlines()
    assert lines == [f"{which}: {4 * k} of 40 files" for which in ("parallel", "serial") for k in range(1, 11)]


def test_tokens_are_counted_on_a_cluster() -> None:
    needs("distributed")
    done = run("token-count-dask.py", DEFAULT, "--limit", "20")
    assert re.fullmatch(
        r"20 files of Python \S+\n"
        r"\d{4,} tokens\n"
        r"cluster: \d+\.\d\d s\n"
        r"serial:  \d+\.\d\d s, \d+\.\d\d times as long\n"
        r"equal: yes\n",
        done.stdout,
    ), done.stdout


def test_files_that_do_not_tokenize_are_reported(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text("x = 1\n")
    (tmp_path / "open.py").write_text("x = (1,\n")
    (tmp_path / "coding.py").write_bytes(b"# coding: utf-8\nx = '\xff'\n")
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "theirs.py").write_text("y = 2\n")
    program = (
        "import runpy, sys, sysconfig\n"
        f"sysconfig.get_path = lambda name: {str(tmp_path)!r}\n"
        f"sys.argv = ['token-count.py', 'fork', '--processes', '1']\n"
        f"runpy.run_path({str(EXAMPLES / 'token-count.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLOCK,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 files of Python")
    assert "2 files do not tokenize, and are not counted\n  coding.py: " in done.stdout
    assert "\n  open.py: TokenError: " in done.stdout
    assert done.stdout.endswith("equal: yes\n")
