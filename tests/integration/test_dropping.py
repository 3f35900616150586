"""Nothing of procflow runs when an object goes that was closed: a Ctrl-C that arrives in a finalizer is lost."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType

import pytest

import procflow
from tests.integration.targets_pool import double


def runs_while(dropping: Callable[[], object]) -> set[str]:
    """Return the names of procflow's functions that run meanwhile in this thread."""
    found: set[str] = set()

    def note(frame: FrameType, event: str, _arg: object) -> None:
        if event == "call" and frame.f_globals.get("__name__", "").startswith("procflow"):
            found.add(f"{frame.f_globals['__name__']}.{frame.f_code.co_qualname}")

    gc.collect()
    sys.setprofile(note)
    try:
        dropping()
        gc.collect()
    finally:
        sys.setprofile(None)
    return found


def test_a_closed_pool_goes_silently(method: str) -> None:
    with procflow.get_context(method).Pool(2) as pool:
        assert pool.map(double, range(4)) == [0, 2, 4, 6]
    held = [pool]
    del pool
    assert runs_while(held.clear) == set()


def test_a_consumed_stream_goes_silently(method: str) -> None:
    with procflow.get_context(method).Pool(2) as pool:
        results = pool.imap(double, range(4))
        assert list(results) == [0, 2, 4, 6]
        held = [results]
        del results
        found = runs_while(held.clear)
    assert found == set()


def test_a_closed_process_goes_silently(method: str) -> None:
    process = procflow.get_context(method).Process(target=double, args=(1,))
    process.start()
    process.join()
    process.close()
    held = [process]
    del process
    assert runs_while(held.clear) == set()


@pytest.mark.parametrize("closed", [False, True])
def test_the_instrument_sees_a_pool_that_was_not_closed(closed: bool) -> None:
    pool = procflow.Pool(1)
    if closed:
        pool.terminate()
        pool.join()
    held = [pool]
    del pool
    if closed:
        assert runs_while(held.clear) == set()
    else:
        with pytest.warns(ResourceWarning, match="unclosed"):
            found = runs_while(held.clear)
        assert "procflow.pool.Pool._left_behind" in found
