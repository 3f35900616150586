"""Every error can be imported from procflow, is told of in the documentation, and pickles as it is."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

import procflow
from procflow import errors

DOCS = Path(__file__).parents[2] / "docs"

MADE: dict[str, tuple[object, ...]] = {  # what those whose constructors ask for something are made of
    "InitializerError": (3, "why"),
    "PeerReset": (104, "reset"),
    "ProcessDied": ("name", 42, -9),
    "RemoteError": ("Type", "repr", "traceback", "why"),
    "RemoteTraceback": ("traceback",),
    "SupervisorGaveUp": ("name", "why", 3, 5.0),
    "TaskKilled": (7, 42),
    "TaskTimeout": (7, 0.5, 42, "Thread 1:"),
    "WorkerDied": (7, 42, -9, True),
}
ERRORS = [
    name for name, found in vars(errors).items() if isinstance(found, type) and found.__module__ == errors.__name__
]


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_part_of_the_public_names(name: str) -> None:
    assert name in errors.__all__
    assert name in procflow.__all__
    assert getattr(procflow, name) is getattr(errors, name)


@pytest.mark.parametrize("name", [name for name in ERRORS if name != "RemoteTraceback"])  # a cause, never raised
def test_an_error_is_in_the_table_of_what_users_catch(name: str) -> None:
    assert f"`{name}`" in (DOCS / "coming-from-multiprocessing.md").read_text().partition("## Errors")[2]


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_pickles_as_it_is(name: str) -> None:
    error = getattr(errors, name)(*MADE.get(name, ("what happened",)))
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.args, str(again), vars(again)) == (type(error), error.args, str(error), vars(error))
