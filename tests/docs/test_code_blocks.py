"""Every ```python block of the documentation and of the README runs, and prints what the page says.

The blocks of a page are one program, in their order, written to one file and run as a user would run it. What a block
prints must be what the ```text block that follows it shows; a block without one must print nothing. In a text block,
`...` stands for anything.
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.clusters import needs

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
DEADLOCK = 100.0
BLOCK = re.compile(r"^```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^```\s*$", re.MULTILINE | re.DOTALL)
pytestmark = pytest.mark.slow
END_OF_BLOCK = "-- end of block --"
NEEDS = {"clusters": "distributed"}  # by page


class Example(NamedTuple):
    line: int
    source: str
    output: str


def examples_of(text: str) -> list[Example]:
    """Pair each python block with the text block right after it; only what is written between them is free."""
    found: list[Example] = []
    previous = ""
    for block in BLOCK.finditer(text):
        language, body = block["language"], block["body"]
        if language == "python":
            found.append(Example(text.count("\n", 0, block.start()) + 2, body, ""))
        elif language == "text" and previous == "python":
            found[-1] = found[-1]._replace(output=body)
        previous = language
    return found


def as_program(examples: list[Example]) -> str:
    """Join the blocks, each at the line that it has in its page, so that a traceback names the page's lines."""
    mark = f"\nif __name__ == '__main__': print({END_OF_BLOCK!r}, flush=True)\n"
    program = ""
    for example in examples:
        program += "\n" * (example.line - 1 - program.count("\n")) + example.source.rstrip("\n") + mark
    return program


def test_blocks_are_paired_with_their_output() -> None:
    page = "a\n```python\n1\n```\nprints\n```text\none\n```\n```sh\nls\n```\n```text\nfiles\n```\n```python\n2\n```\n"
    assert examples_of(page) == [Example(3, "1\n", "one\n"), Example(16, "2\n", "")]


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_a_page_prints_what_it_says(page: Path, tmp_path: Path) -> None:
    if page.stem in NEEDS:
        needs(NEEDS[page.stem])
    examples = examples_of(page.read_text(encoding="utf-8"))
    if not examples:
        return
    script = tmp_path / f"{page.stem.replace('-', '_').lower()}_page.py"
    script.write_text(as_program(examples), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,  # some write files
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=DEADLOCK,
    )
    *printed, rest = done.stdout.split(END_OF_BLOCK + "\n")
    checker = doctest.OutputChecker()
    for example, output in zip(examples, printed, strict=False):
        where = f"{page.relative_to(ROOT)}, the block at line {example.line}"
        assert checker.check_output(example.output, output, doctest.ELLIPSIS), (
            f"{where} printed\n{output}\nbut says\n{example.output}\n{done.stderr}"
        )
    assert done.returncode == 0, done.stderr
    assert (len(printed), rest) == (len(examples), "")
