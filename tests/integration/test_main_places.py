"""Functions and classes of wherever a user may write them: every place, under every start method, run for real.

One program (program_everywhere.py) checks all uses with Process and Pool, and prints what went wrong; each place runs
it in its way. REDEFINITION is for places where one types: there a name may get another meaning while a pool is open.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import select
import subprocess
import sys
import zipapp
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import procflow
from tests.conftest import METHODS
from tests.support import DEADLOCK

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

PROGRAM = Path(__file__).with_name("program_everywhere.py").read_text(encoding="utf-8")
RIGHT = "all as it should be"
CALL = "main()\n"
GUARD = f'if __name__ == "__main__":\n    {CALL}'
UNGUARDED, GUARDED = PROGRAM + CALL, PROGRAM + GUARD
LIMIT = 2 * DEADLOCK  # seconds

REDEFINITION = """\
pool = procflow.get_context(METHOD).Pool(1)
def meaning(_): return "first", setting
def through_another(x): return meaning(x)
setting = 1
seen = [pool.map(meaning, [0])[0], pool.map(through_another, [0])[0], pool.submit(Point(1), 1).result().x]
def meaning(_): return "second", setting
seen += [pool.map(meaning, [0])[0], pool.map(through_another, [0])[0]]
setting = 2
seen += [pool.map(meaning, [0])[0]]
class Point(Point):
    def moved(self, by): return Point(100)
again = pool.submit(Point(1), 1).result()
seen += [again.x, type(again) is Point]
Pair.limit = 5
seen += pool.map(lambda x: Pair.limit, [0])
Pair.limit = 6
seen += pool.map(lambda x: Pair.limit, [0])
pool.terminate()
expected = [("first", 1), ("first", 1), 2, ("second", 1), ("second", 1), ("second", 2), 100, True, 5, 6]
print("redefined", seen == expected or seen)
"""
REDEFINED = "redefined True"


def chunks(text: str) -> list[str]:
    """The statements at the top of a program, without blank lines, as one types them."""
    lines = text.splitlines()
    found = []
    for statement in ast.parse(text).body:
        first = min(part.lineno for part in (statement, *getattr(statement, "decorator_list", [])))
        found.append("\n".join(line for line in lines[first - 1 : statement.end_lineno] if line))
    return found[1:]  # the first is the docstring


TYPED = [*chunks(PROGRAM), "main()", *chunks("0\n" + REDEFINITION)]


def run(method: str, cwd: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run Python in this directory, as a user would."""
    source = str(Path(procflow.__file__).parents[1])
    path = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "METHOD": method, "PYTHONPATH": path, "IPYTHONDIR": str(cwd / ".ipython")}
    return subprocess.run(
        [sys.executable, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        cwd=cwd,
        env=environment,
        check=False,
    )


def needs(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed; `pip install procflow[test]` brings it")


# ---- the places: each runs the program, and returns what was printed


def by_path(text: str) -> Callable[[str, Path], str]:
    def place(method: str, cwd: Path) -> str:
        (cwd / "script.py").write_text(text)
        return finished(run(method, cwd, "script.py"))

    return place


def by_name(text: str, name: str) -> Callable[[str, Path], str]:
    def place(method: str, cwd: Path) -> str:
        (cwd / "package").mkdir()
        (cwd / "package" / "__init__.py").touch()
        (cwd / "package" / "__main__.py").write_text(text)
        (cwd / "package" / "module.py").write_text(text)
        return finished(run(method, cwd, "-m", name))

    return place


def zip_application(text: str) -> Callable[[str, Path], str]:
    def place(method: str, cwd: Path) -> str:
        (cwd / "app").mkdir()
        (cwd / "app" / "__main__.py").write_text(text)
        zipapp.create_archive(cwd / "app", cwd / "app.pyz")
        return finished(run(method, cwd, "app.pyz"))

    return place


def directory(method: str, cwd: Path) -> str:
    (cwd / "app").mkdir()
    (cwd / "app" / "__main__.py").write_text(GUARDED)
    return finished(run(method, cwd, "app"))


def standard_input(method: str, cwd: Path) -> str:
    return finished(run(method, cwd, stdin=UNGUARDED + REDEFINITION))


def dash(method: str, cwd: Path) -> str:
    return finished(run(method, cwd, "-", stdin=UNGUARDED + REDEFINITION))


def dash_c(method: str, cwd: Path) -> str:
    return finished(run(method, cwd, "-c", UNGUARDED + REDEFINITION))


def prompt(method: str, cwd: Path) -> str:
    return finished(run(method, cwd, "-i", "-q", stdin="\n\n".join(TYPED) + "\n\n"))


def prompt_behind_a_script(method: str, cwd: Path) -> str:
    (cwd / "script.py").write_text(GUARDED)
    typed = "\n\n".join(chunks("0\n" + REDEFINITION)) + "\n\n"
    return finished(run(method, cwd, "-i", "-q", "script.py", stdin=typed))


def terminal(method: str, cwd: Path) -> str:
    import pty

    (cwd / "typed").write_text(PROGRAM + CALL + REDEFINITION)
    parent, child = pty.openpty()
    environment = {**os.environ, "METHOD": method, "PYTHON_HISTORY": os.devnull, "TERM": "xterm"}
    environment["PYTHONPATH"] = str(Path(procflow.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-q"], stdin=child, stdout=child, stderr=child, cwd=cwd, env=environment
    ) as process:
        os.close(child)
        try:
            os.write(parent, b"exec(open('typed').read())\rexit()\r")
            return read_terminal(parent)
        finally:
            process.kill()
            os.close(parent)


def read_terminal(fd: int) -> str:
    shown = b""
    while select.select([fd], [], [], LIMIT)[0]:
        try:
            data = os.read(fd, 4096)
        except OSError:  # EIO: nobody has the other end any more
            break
        if not data:
            break
        shown += data
    return shown.decode(errors="replace")


def ipython(method: str, cwd: Path) -> str:
    needs("IPython")
    options = ["--no-banner", "--simple-prompt", "--colors=NoColor", "--no-confirm-exit"]
    return finished(run(method, cwd, "-m", "IPython", *options, stdin="\n\n".join(TYPED) + "\n\n"))


NOTEBOOK = """
import json, sys
import nbclient, nbformat
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in json.load(sys.stdin)])
nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
for cell in notebook.cells:
    for output in cell.outputs:
        if output.get("name") == "stdout":
            print(output.text, end="")
"""


def jupyter(method: str, cwd: Path) -> str:
    import json

    needs("ipykernel", "nbclient")
    return finished(run(method, cwd, "-W", "ignore", "-c", NOTEBOOK, stdin=json.dumps(TYPED)))


def run_by(*runner: str) -> Callable[[str, Path], str]:
    """A program that runs the script as `__main__`, and is in its place at first."""

    def place(method: str, cwd: Path) -> str:
        needs(runner[0])
        (cwd / "script.py").write_text(UNGUARDED)
        return finished(run(method, cwd, "-m", *runner, "script.py"))

    return place


def in_pytest(method: str, cwd: Path) -> str:
    (cwd / "test_it.py").write_text(PROGRAM + "def test_it():\n    main()\n")
    return finished(run(method, cwd, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "test_it.py"))


def as_doctest() -> str:
    typed = [chunk.replace("\n", "\n... ") for chunk in [*chunks(PROGRAM), CALL.strip()]]
    return "".join(f">>> {chunk}\n" for chunk in typed) + RIGHT + "\n"


def doctest_of_a_module(method: str, cwd: Path) -> str:
    (cwd / "documented.py").write_text(f"r'''\n{as_doctest()}'''\n")
    return finished(run(method, cwd, "-m", "doctest", "-v", "documented.py"))


def doctest_of_a_file(method: str, cwd: Path) -> str:
    (cwd / "documented.txt").write_text(as_doctest())
    return finished(run(method, cwd, "-m", "doctest", "-v", "documented.txt"))


def finished(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


FIXED = {
    "a script with the guard": by_path(GUARDED),
    "a script without the guard": by_path(UNGUARDED),
    "python -m package, with the guard": by_name(GUARDED, "package"),
    "python -m package, without the guard": by_name(UNGUARDED, "package"),
    "python -m module, with the guard": by_name(GUARDED, "package.module"),
    "python -m module, without the guard": by_name(UNGUARDED, "package.module"),
    "a zip application with the guard": zip_application(GUARDED),
    "a zip application without the guard": zip_application(UNGUARDED),
    "a directory": directory,
    "coverage run": run_by("coverage", "run"),
    "python -m cProfile": run_by("cProfile", "-o", os.devnull),
    "python -m pdb": run_by("pdb", "-c", "continue", "-c", "quit"),
    "pytest": in_pytest,
    "a doctest of a module": doctest_of_a_module,
    "a doctest of a file": doctest_of_a_file,
}
TYPING = {
    "python < script": standard_input,
    "python - < script": dash,
    "python -c": dash_c,
    "python -i": prompt,
    "python -i script": prompt_behind_a_script,
    "a terminal": terminal,
    "IPython": ipython,
    "Jupyter": jupyter,
}


# What is like one of the others, but for what this project does not touch.
ALIKE = {
    "a directory",
    "a doctest of a file",
    "a zip application with the guard",
    "python - < script",
    "python -i",
    "python -m module, with the guard",
    "python -m package, with the guard",
    "python -m pdb",
}
TELLING = {"a script without the guard", "python -c"}  # under the two methods that are not the default


def everywhere(places: Iterable[str]) -> list[ParameterSet]:
    """Each place under each start method; all but the most telling ones are slow, as there are so many."""
    return [
        pytest.param(
            method,
            place,
            marks=() if place in TELLING or (method == "forkserver" and place not in ALIKE) else pytest.mark.slow,
        )
        for method in METHODS
        for place in places
    ]


@pytest.mark.parametrize(("method", "place"), everywhere(FIXED))
def test_what_a_program_defines_is_of_use_in_its_children(method: str, place: str, tmp_path: Path) -> None:
    assert RIGHT in FIXED[place](method, tmp_path)


@pytest.mark.parametrize(("method", "place"), everywhere(TYPING))
def test_what_is_typed_is_of_use_in_children_and_may_be_redefined(method: str, place: str, tmp_path: Path) -> None:
    printed = TYPING[place](method, tmp_path)
    assert RIGHT in printed
    assert REDEFINED in printed
