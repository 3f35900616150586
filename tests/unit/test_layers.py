"""The layers: imports point down only, and a worker imports little. Read from the sources, and from a worker."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import procflow

SOURCE = Path(procflow.__file__).parent

# From the top down. A module imports from its own layer and those below it. Within a layer: see SIBLINGS.
LAYERS = [
    {"__main__"},
    {"__init__", "doctor", "joblib"},
    {"pool", "executor", "process", "connection", "supervisor", "supervised", "context"},
    {"dispatch", "observe"},
    {"engines"},
    {"scheduling"},
    {"worker"},
    {"wire"},
    {"start"},
    {"broken", "shared_arrays"},
    {"errors", "cpu", "dropping", "generic", "portable", "shown"},
]

# Who may import the layer beside it, where a layer has several members.
SIBLINGS = {
    ("doctor", "__init__"),
    ("observe", "dispatch"),
    ("context", "process"),
    ("context", "pool"),
    ("context", "connection"),
    ("executor", "pool"),
    ("supervisor", "connection"),
    ("supervisor", "context"),
    ("supervisor", "supervised"),
    ("supervised", "connection"),
}

# Imports that point up. Each has its reason, and is made in a function, so that no module needs the other to be loaded.
EXCEPTIONS = {
    ("procflow.pool", "procflow.context"): "Pool() without a context takes the default one, which is a Context",
    ("procflow.executor", "procflow.context"): "PoolExecutor() without a context takes the default one",
    ("procflow.process", "procflow.context"): "Process() without a context takes the default start method",
    ("procflow.start.process_entry", "procflow.worker.result"): "what can't be rebuilt in the child is its failure",
}

# What the pure core may not even mention: it knows no system, no threads and no clock.
IMPURE = {
    "asyncio",
    "concurrent",
    "ctypes",
    "mmap",
    "multiprocessing",
    "os",
    "queue",
    "random",
    "select",
    "selectors",
    "signal",
    "socket",
    "subprocess",
    "sys",
    "threading",
    "time",
    "_thread",
}

# What would make a worker slow to start; DESIGN.md has the price of each.
HEAVY = {
    "asyncio",
    "concurrent",
    "dataclasses",
    "inspect",
    "logging",
    "multiprocessing",
    "socket",
    "subprocess",
    "typing",
}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(SOURCE.rglob("*.py")):
        parts = ("procflow", *path.relative_to(SOURCE).with_suffix("").parts)
        yield ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts), path


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield what a module imports, and whether only a function does; what only a type checker sees does not count."""

    def walk(node: ast.AST, lazy: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for other in node.orelse:
                yield from walk(other, lazy)
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, lazy
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                inner = SOURCE.parent.joinpath(*(node.module or "").split("."), f"{alias.name}.py").exists()
                yield (f"{node.module}.{alias.name}" if inner else node.module or ""), lazy
        inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside)

    yield from walk(ast.parse(path.read_text()), False)


def member(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def level(name: str) -> int:
    found = [number for number, layer in enumerate(LAYERS) if name in layer]
    assert found, f"procflow.{name} is in no layer: LAYERS has to say where it belongs"
    return found[0]


def may_import(importer: str, imported: str) -> bool:
    own, other = member(importer), member(imported)
    if own == other:
        return True
    if level(own) == level(other):
        return (own, other) in SIBLINGS
    return level(own) < level(other)


MODULES = dict(modules())


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    wrong = [
        (imported, lazy)
        for imported, lazy in imports(MODULES[module])
        if imported.split(".")[0] == "procflow" and not may_import(module, imported)
    ]
    assert [imported for imported, lazy in wrong if not (lazy and (module, imported) in EXCEPTIONS)] == []


def test_every_exception_to_the_layers_is_still_needed() -> None:
    real = {(module, imported) for module, path in MODULES.items() for imported, _ in imports(path)}
    assert set(EXCEPTIONS) <= real


@pytest.mark.parametrize("module", [module for module in MODULES if member(module) == "scheduling"])
def test_the_scheduler_knows_no_system(module: str) -> None:
    found = {imported.split(".")[0] for imported, _ in imports(MODULES[module])}
    assert not found & IMPURE


@pytest.mark.parametrize("module", MODULES)
def test_no_module_reads_the_wall_clock(module: str) -> None:
    """So it may jump: every wait and every limit is measured by the monotonic one."""
    wall = {"time", "time_ns", "localtime", "gmtime", "ctime", "CLOCK_REALTIME"}
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time":
            assert node.attr not in wall, f"{module}:{node.lineno}"
        elif isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime"):
            assert not wall & {alias.name for alias in node.names}, f"{module}:{node.lineno}"


@pytest.mark.parametrize(
    "module", [module for module in MODULES if member(module) in ("scheduling", "engines", "dispatch")]
)
def test_nothing_below_the_public_modules_imports_them(module: str) -> None:
    public = {f"procflow.{name}" for name in LAYERS[1]}
    assert not {imported for imported, _ in imports(MODULES[module])} & public


WORKER = """
import sys
from procflow import Pool, get_context
from tests.property.functions import imported

if __name__ == "__main__":
    with Pool(1, context=get_context(sys.argv[1])) as pool:
        print(*pool.map(imported, [0])[0])
"""


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_worker_imports_nothing_heavy(method: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(WORKER)
    path = os.pathsep.join([str(SOURCE.parent), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, str(program), method],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "pickle" in loaded
    assert not loaded & HEAVY
