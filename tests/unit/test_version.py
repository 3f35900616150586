"""The version stands in two places; docs/design/releasing.md says where."""

from __future__ import annotations

import tomllib

import procflow
from tests.support import ROOT


def test_the_two_places_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == procflow.__version__
