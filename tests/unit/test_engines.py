"""What of the engines needs no other process."""

from __future__ import annotations

import importlib
import sys

import pytest

import procflow.engines


@pytest.mark.parametrize(("module", "needed", "extra"), [("dask", "distributed", "dask"), ("ray", "ray", "ray")])
def test_an_extra_that_is_missing_is_named(
    module: str, needed: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, needed, None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, f"procflow.engines.{module}", raising=False)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'procflow\[{extra}\]'"):
        importlib.import_module(f"procflow.engines.{module}")


def test_engines_are_imported_when_they_are_used() -> None:
    assert procflow.engines.FuturesEngine.__module__ == "procflow.engines.futures"
    with pytest.raises(AttributeError, match="no attribute 'CloudEngine'"):
        _ = procflow.engines.CloudEngine  # type: ignore[attr-defined]
