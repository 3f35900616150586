"""Contexts and the default start method."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import subprocess
import sys

import pytest

import procflow
from procflow.context import Context, DefaultContext, get_all_start_methods, get_context

METHODS = ("forkserver", "spawn", "fork")


def test_the_default_method_is_forkserver_and_comes_first() -> None:
    assert get_all_start_methods() == list(METHODS)
    assert DefaultContext().get_start_method() == "forkserver"


@pytest.mark.parametrize("wrong", ["spanw", "", "FORK"])
def test_an_unknown_method_is_a_value_error_that_names_those_available(wrong: str) -> None:
    for ask in (get_context, DefaultContext().set_start_method):
        with pytest.raises(ValueError, match="'forkserver', 'spawn', 'fork'"):
            ask(wrong)


def test_the_default_method_is_set_once() -> None:
    default = DefaultContext()
    assert default.get_start_method(allow_none=True) is None
    default._fixed = get_context("fork")
    with pytest.raises(RuntimeError, match="already been set"):
        default.set_start_method("spawn")


def test_setting_the_default_leaves_multiprocessing_alone() -> None:
    code = (
        "import multiprocessing, procflow\n"
        "before = multiprocessing.get_start_method(allow_none=True)\n"
        "procflow.set_start_method('spawn')\n"
        "assert procflow.get_start_method() == 'spawn'\n"
        "assert multiprocessing.get_start_method(allow_none=True) == before\n"
        "procflow.set_start_method('fork', force=True)\n"
        "assert procflow.get_start_method() == 'fork'\n"
        "try: procflow.set_start_method('spawn')\n"
        "except RuntimeError: print('refused')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "refused\n"


@pytest.mark.parametrize("name", METHODS)
def test_a_context_has_what_the_module_has(name: str) -> None:
    context = get_context(name)
    assert (context.get_start_method(), context.get_context()) == (name, context)
    with pytest.raises(ValueError, match="for good"):
        context.set_start_method("fork")
    for attribute in (
        *("Process", "Pool", "Pipe", "wait", "cpu_count", "active_children", "current_process", "parent_process"),
        *("freeze_support", "set_executable", "set_forkserver_preload", "get_all_start_methods"),
        *("Lock", "RLock", "Queue", "SimpleQueue", "JoinableQueue", "Event", "Condition", "Semaphore", "Barrier"),
        *("Value", "Array", "RawValue", "RawArray", "Manager", "TimeoutError"),
    ):
        assert callable(getattr(context, attribute))
    assert context.current_process is multiprocessing.current_process


@pytest.mark.parametrize("name", METHODS)
def test_a_context_is_one_object_also_when_copied(name: str) -> None:
    context = get_context(name)
    assert copy.copy(context) is context
    assert pickle.loads(pickle.dumps(context)) is context


def test_a_context_makes_processes_and_locks_of_its_method(ctx: Context, method: str) -> None:
    assert ctx.Process._start_method == method
    assert isinstance(ctx.Process(), procflow.Process)
    with ctx.Lock():
        pass


def test_a_manager_runs_in_a_process_of_the_method(ctx: Context) -> None:
    with ctx.Manager() as manager:
        shared = manager.dict(a=1)
        shared["b"] = 2
        assert dict(shared) == {"a": 1, "b": 2}
