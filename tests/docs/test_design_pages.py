"""The design pages name what is there: modules, functions, tests; and they show every module's states."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DESIGN = ROOT / "docs" / "design"
PLACES = [ROOT / "src" / "procflow", ROOT / "tests" / "faults", ROOT]
NAMED = re.compile(r"`(?P<file>[\w/.-]+\.py)?(?:::(?P<name>[\w.]+))?`")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "extensions" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


states = load("states")


def names_in(path: Path) -> set[str]:
    """Functions, classes, and methods as `Class.method`."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{one.name}" for one in node.body if isinstance(one, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("page", sorted(DESIGN.glob("*.md")), ids=lambda page: page.name)
def test_what_a_design_page_names_is_there(page: Path) -> None:
    path: Path | None = None
    for match in NAMED.finditer(page.read_text("utf-8")):
        if match["file"] is not None:
            path = next((place / match["file"] for place in PLACES if (place / match["file"]).exists()), None)
            assert path is not None, f"{page.name} names {match['file']}, which is not there"
        if match["name"] is not None:  # without a file: in the one that was named last
            assert path is not None
            assert match["name"] in names_in(path), f"{page.name} names {match[0]}, which is not there"


def test_the_walk_names_every_step() -> None:
    named = [match for match in NAMED.finditer((DESIGN / "walk.md").read_text("utf-8")) if match["name"]]
    assert len(named) > 20


def test_every_module_with_states_is_on_the_page_of_states() -> None:
    page = states.on_page_markdown((DESIGN / "states.md").read_text("utf-8"))
    for path in states.SOURCE.rglob("*.py"):
        name = path.relative_to(states.SOURCE).as_posix()
        text = ast.get_docstring(ast.parse(path.read_text("utf-8")))
        if text and states.has_states(text):
            assert f"### `{name}`" in page
    assert "{{" not in page


def test_a_docstring_is_shown_with_its_table_and_its_invariants() -> None:
    text = "Doors.\n\nThey open:\n    OPEN -> SHUT\n\nD1  A door that\n    is open.\nD2  Another.\n\nThe end."
    shown = "Doors.\n\nThey open:\n\n```text\nOPEN -> SHUT\n```\n\n- **D1** A door that is open."
    shown += "\n- **D2** Another.\n\nThe end."
    assert states.as_markdown(text) == shown


@pytest.mark.parametrize("place", ["wire/not_there.py", "typing/"])
def test_a_place_that_has_no_states_is_an_error(place: str) -> None:
    with pytest.raises((OSError, ValueError)):
        states.on_page_markdown(f"{{{{ states of {place} }}}}")
