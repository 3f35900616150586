"""The reference has every name that procflow has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import procflow
from procflow import errors

REFERENCE = (Path(__file__).parents[2] / "docs" / "reference.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", procflow.__all__)
def test_a_public_name_is_in_the_reference(name: str) -> None:
    if name in errors.__all__:  # shown with its module
        assert "::: procflow.errors" in REFERENCE
    else:
        assert re.search(rf"`{name}(\(.*?\))?`|^#+ {name}$|::: procflow\.{name}$", REFERENCE, re.MULTILINE)
