"""`{{ states of scheduling/scheduler.py }}` in a page becomes what that module's own docstring says.

A folder, `{{ states of wire/ }}`, stands for all of its modules that have states or numbered invariants; `./` for those
that are in no folder. So the tables that a reader of the site sees are those that a reader of the code sees. mkdocs.yml
names this file as a hook; it needs nothing but the sources.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[2] / "src" / "procflow"
PLACE = re.compile(r"^\{\{ states of (?P<place>\S+) \}\}$", re.MULTILINE)
INVARIANT = re.compile(r"^(?P<name>[A-Z]+\d+)  +(?P<text>.*(?:\n +\S.*)*)", re.MULTILINE)


def docstring_of(module: str) -> str:
    """Read it without importing anything."""
    found = ast.get_docstring(ast.parse((SOURCE / module).read_text("utf-8")))
    if found is None:
        raise ValueError(f"{module} has no docstring")
    return found


def has_states(text: str) -> bool:
    """Whether a docstring has numbered invariants, or a table in which something becomes something else."""
    return bool(INVARIANT.search(text) or re.search(r"^    .*(->|→).*$", text, re.MULTILINE))


def as_markdown(text: str) -> str:
    """Write the paragraphs of a docstring: tables in a fence, invariants as a list, all else as it is."""
    shown: list[str] = []
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("    "):
            lines = [line.removeprefix("    ") for line in paragraph.splitlines()]
            shown.append("\n".join(["```text", *lines, "```"]))
        elif INVARIANT.match(paragraph):
            shown.append("\n".join(f"- **{one['name']}** {' '.join(one['text'].split())}" for one in _each(paragraph)))
        else:
            shown.append(_with_table(paragraph))
    return "\n\n".join(shown)


def _each(paragraph: str) -> list[re.Match[str]]:
    return list(INVARIANT.finditer(paragraph))


def _with_table(paragraph: str) -> str:
    """A table may follow its sentence without an empty line."""
    lines = paragraph.splitlines()
    at = next((number for number, line in enumerate(lines) if line.startswith("    ")), None)
    if at is None:
        return paragraph
    table = [line.removeprefix("    ") for line in lines[at:]]
    return "\n".join([*lines[:at], "", "```text", *table, "```"])


def modules_of(place: str) -> list[str]:
    """A module, or those of a folder that have something to show."""
    if not place.endswith("/"):
        return [place]
    names = sorted(path.relative_to(SOURCE).as_posix() for path in (SOURCE / place).glob("*.py"))
    found = [name for name in names if has_states(docstring_of(name))]
    if not found:
        raise ValueError(f"no module of {place} has states")
    return found


def shown(place: str) -> str:
    """What stands in the page for a module or a folder: the docstrings, each under the module's name."""
    return "\n\n".join(f"### `{module}`\n\n{as_markdown(docstring_of(module))}" for module in modules_of(place))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for each page."""
    return PLACE.sub(lambda match: shown(match["place"]), markdown)
