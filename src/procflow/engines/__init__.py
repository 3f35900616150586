"""Engines: they carry out what the scheduler decided, and report what happened. They decide nothing.

Those that a user gives to `Pool(engine=)` are here by name, and imported when they are first used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from procflow.engines.dask import DaskEngine as DaskEngine
    from procflow.engines.futures import FuturesEngine as FuturesEngine
    from procflow.engines.ray import RayEngine as RayEngine

_HOME = {"DaskEngine": "dask", "FuturesEngine": "futures", "RayEngine": "ray"}

__all__ = ["DaskEngine", "FuturesEngine", "RayEngine"]


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module 'procflow.engines' has no attribute {name!r}")
    return getattr(import_module(f"procflow.engines.{_HOME[name]}"), name)
