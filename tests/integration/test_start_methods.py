"""Programs as users write them, run as programs: with and without a main guard, by path, by name, typed in."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.integration.targets_process import runs, wait_gone
from tests.support import DEADLOCK

UNGUARDED = """
    import os, sys
    import procflow
    print("top", flush=True)
    class Point:
        def __init__(self, x): self.x = x
    def work(answer, point):
        answer.put((os.getpid(), Point(point.x + 1)))
    context = procflow.get_context({method!r})
    queue = context.SimpleQueue()
    process = context.Process(target=work, args=(queue, Point(1)))
    process.start()
    pid, point = queue.get()
    process.join()
    print(pid == process.pid, type(point) is Point, point.x, process.exitcode)
"""

GUARDED = """
    import os, sys
    import procflow
    class Point:
        def __init__(self, x): self.x = x
    def work(answer, point):
        answer.put((os.getpid(), Point(point.x + 1)))
    if __name__ == "__main__":
        context = procflow.get_context({method!r})
        queue = context.SimpleQueue()
        process = context.Process(target=work, args=(queue, Point(1)))
        process.start()
        pid, point = queue.get()
        process.join()
        print(pid == process.pid, type(point) is Point, point.x, process.exitcode)
"""

EXPECTED = "True True 2 0"


def python(*arguments: str, stdin: str | None = None, cwd: Path | None = None) -> list[str]:
    result = subprocess.run(
        [sys.executable, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=DEADLOCK,
        cwd=cwd,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.splitlines()


def source(text: str, method: str) -> str:
    return textwrap.dedent(text).format(method=method)


@pytest.mark.parametrize("text", [GUARDED, UNGUARDED], ids=["guarded", "unguarded"])
def test_a_script_with_or_without_main_guard(method: str, text: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(source(text, method))
    output = python(str(script))
    assert output[-1] == EXPECTED
    # The replay prints too: a line at the most, up to the first start().
    assert output[:-1] in ([], ["top"], ["top", "top"])


@pytest.mark.parametrize("text", [GUARDED, UNGUARDED], ids=["guarded", "unguarded"])
def test_python_dash_m_package_and_module(method: str, text: str, tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(source(text, method))
    (package / "module.py").write_text("from . import __name__ as relative\n" + source(text, method))
    assert python("-m", "package", cwd=tmp_path)[-1] == EXPECTED
    assert python("-m", "package.module", cwd=tmp_path)[-1] == EXPECTED


def test_a_directory_as_a_program(method: str, tmp_path: Path) -> None:
    (tmp_path / "__main__.py").write_text(source(GUARDED, method))
    assert python(str(tmp_path))[-1] == EXPECTED


def test_a_zip_application(method: str, tmp_path: Path) -> None:
    import zipapp

    app = tmp_path / "app"
    app.mkdir()
    (app / "__main__.py").write_text(source(GUARDED, method))
    zipapp.create_archive(app, tmp_path / "app.pyz")
    assert python(str(tmp_path / "app.pyz"))[-1] == EXPECTED


def test_python_dash_c_and_standard_input(method: str) -> None:
    assert python("-c", source(UNGUARDED, method))[-1] == EXPECTED
    assert python("-", stdin=source(UNGUARDED, method))[-1] == EXPECTED


def test_the_script_is_not_run_again_when_no_name_of_it_is_needed(method: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        source(
            """
            import time, procflow
            print("top", flush=True)
            process = procflow.get_context({method!r}).Process(target=time.sleep, args=(0,))
            process.start()
            process.join()
            print(process.exitcode)
            """,
            method,
        )
    )
    assert python(str(script)) == ["top", "0"]


TOO_LATE = """\
import procflow
def early(x): return late(x)
context = procflow.get_context({method!r})
with context.Pool(1) as pool:
    pool.apply(abs, (1,))
    def late(x): return x
    for function in (late, early):
        print(type(error := pool.submit(function, 1).exception()).__name__, *error.__notes__)
try:
    with context.Pool(1, late, (1,)) as pool: pool.apply(abs, (1,))
    print("no error")
except procflow.InitializerError as error:
    print(str(error).replace("\\n", " "))
process = context.Process(target=late, args=(1,))
process.start()
try:
    process.result()
    print("no error")
except AttributeError as error:
    print(type(error).__name__, *error.__notes__)
"""

UNGUARDED_SUPERVISOR = """\
import procflow
def child(): pass
supervisor = procflow.Supervisor(context=procflow.get_context({method!r}))
supervisor.add(child, restart="temporary")
supervisor.start()
supervisor.join()
print("below", flush=True)
"""

GUARDED_NAME = """\
import procflow
if __name__ == "__main__":
    def guarded(): pass
    process = procflow.get_context({method!r}).Process(target=guarded)
    process.start(); process.join()
"""


def test_a_name_below_the_first_start_of_an_unguarded_script_is_told_of_with_the_line(
    method: str, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(TOO_LATE.format(method=method))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=DEADLOCK, check=False)
    by_name, by_global, *others = done.stdout.splitlines()
    assert by_name.startswith("AttributeError module")
    assert by_global.startswith("NameError module")
    if method == "fork":  # what is started later has the name
        assert others == ["no error", "no error"]
        hint, advice, told = "a fork of the program as it was then", "above the line that opens", [by_name, by_global]
    else:
        initializer, target = others
        assert target.startswith("AttributeError module")
        hint = f"runs {script} for its names, up to line 4, where the script starts a process"
        advice, told = "before that line", [by_name, by_global, initializer, target, done.stderr]
    for text in told:
        assert hint in text
        assert f"Define 'late' {advice}" in text


def test_what_else_starts_processes_ends_the_replay_of_an_unguarded_script_too(method: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED_SUPERVISOR.format(method=method))
    assert python(str(script))[-1:] == ["below"]
    assert python(str(script)).count("below") == 1


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_name_under_the_main_guard_is_told_of_as_one_that_a_child_skips(method: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(GUARDED_NAME.format(method=method))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=DEADLOCK, check=False)
    assert f"{script} does not define it, or only under `if __name__ == '__main__':`" in done.stderr
    assert "'guarded'" in done.stderr


def test_an_unguarded_script_that_also_uses_multiprocessing_does_not_fork_for_ever(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        source(
            """
            import multiprocessing, procflow, time, sys
            def work(): pass
            if len(sys.argv) > 9: pass
            other = multiprocessing.get_context("fork").Process(target=time.sleep, args=(0,))
            other.start(); other.join()
            print("one", flush=True)
            process = procflow.get_context("spawn").Process(target=work)
            process.start(); process.join()
            """,
            "spawn",
        )
    )
    command = [sys.executable, str(script)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=DEADLOCK, check=False)
    assert result.stdout.splitlines().count("one") <= 2


def test_a_daemonic_process_does_not_outlive_a_killed_parent_and_another_does(method: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        source(
            """
            import os, signal, time, procflow
            if __name__ == "__main__":
                context = procflow.get_context({method!r})
                daemon = context.Process(target=time.sleep, args=(600,), daemon=True)
                other = context.Process(target=time.sleep, args=(600,))
                daemon.start(); other.start()
                print(daemon.pid, other.pid, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            """,
            method,
        )
    )
    with open(tmp_path / "out", "w+") as out:
        subprocess.run([sys.executable, str(script)], stdout=out, stderr=out, timeout=DEADLOCK, check=False)
        out.seek(0)
        daemon, other = map(int, out.read().split())
    try:
        wait_gone([daemon])
        assert runs(other)
    finally:
        os.kill(other, 9)


@pytest.mark.parametrize("warnings", ["default", "error"])
def test_a_program_that_is_told_of_every_warning_is_told_of_none_of_ours(
    method: str, warnings: str, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        source(
            """
            import procflow
            def prepare(given):
                global lock
                lock = given
            def double(x):
                with lock: return 2 * x
            def answer(connection):
                with connection: connection.send(connection.recv() + 1)
            if __name__ == "__main__":
                context = procflow.get_context({method!r})
                ours, theirs = context.Pipe()
                with ours, context.Process(target=answer, args=(theirs,)) as process:
                    theirs.close()
                    ours.send(1)
                    print(ours.recv())
                process.close()
                with context.Pool(2, prepare, (context.Lock(),)) as pool:
                    print(pool.map(double, [1, 2]), list(pool.imap(double, iter([3]))), pool.submit(lambda: 4).result())
            """,
            method,
        )
    )
    # python() asserts that nothing was written to stderr, by the fork server neither: it waits for the last who has it.
    assert python("-W", warnings, str(script)) == ["2", "[2, 4] [6] 4"]


def test_preloaded_modules_are_imported_already_in_the_child(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        source(
            """
            import sys, procflow
            def work():
                print("colorsys" in sys.modules, flush=True)
            if __name__ == "__main__":
                context = procflow.get_context("forkserver")
                context.set_forkserver_preload(["colorsys", "no.such.module"])
                process = context.Process(target=work)
                process.start(); process.join()
            """,
            "",
        )
    )
    assert python(str(script)) == ["True"]
