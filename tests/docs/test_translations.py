"""The Spanish tutorial has the programs of the English one, and its sections, in the same order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import ROOT

DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```\w*\n.*?^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ ", re.MULTILINE)
PAGES = sorted((DOCS / "tutorial").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_of_the_tutorial_is_there_in_spanish(page: Path) -> None:
    english = page.read_text("utf-8")
    spanish = (DOCS / "es" / "tutorial" / page.name).read_text("utf-8")
    assert BLOCK.findall(spanish) == BLOCK.findall(english)
    assert HEADING.findall(BLOCK.sub("", spanish)) == HEADING.findall(BLOCK.sub("", english))
    assert f"es/tutorial/{page.name}" in (ROOT / "mkdocs.yml").read_text("utf-8")


@pytest.mark.parametrize("picture", sorted((DOCS / "es" / "images").glob("*.svg")), ids=lambda path: path.stem)
def test_a_spanish_picture_is_drawn_as_the_english_one(picture: Path) -> None:
    """Only its words differ, so what is drawn anew in one is seen to lack in the other."""
    shapes = re.compile(r"<(?:rect|path|marker|text|tspan)[^>]*>|<style>.*?</style>", re.DOTALL)
    english = (DOCS / "images" / picture.name).read_text("utf-8")
    assert shapes.findall(picture.read_text("utf-8")) == shapes.findall(english)
