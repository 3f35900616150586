"""The n-th call of the system fails while something starts, for every n: a clear error, and nothing is left."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

import procflow
from procflow.errors import ProcflowError
from tests.support import DEADLOCK, Leftovers, wait_until


class FailsAt:
    """`call`, failing at its n-th time."""

    def __init__(self, call: Callable[..., Any], n: int, number: int) -> None:
        self._call, self._left, self._errno = call, n, number
        self.failed = False

    def __call__(self, *args: Any) -> Any:
        self._left -= 1
        if self._left == 0:
            self.failed = True
            raise OSError(self._errno, os.strerror(self._errno))
        return self._call(*args)


CALLS = [("pipe", errno.EMFILE), ("memfd_create", errno.EMFILE), ("fork", errno.EAGAIN), ("pidfd_open", errno.EMFILE)]
MANY = 40  # more often than any start makes a call


def start_process(ctx: procflow.Context) -> None:
    process = ctx.Process(target=abs, args=(1,))
    try:
        process.start()
        process.join(DEADLOCK)
    finally:
        process.close()


def use_pool(ctx: procflow.Context) -> None:
    with ctx.Pool(2) as pool:
        assert pool.apply_async(abs, (-1,)).get(DEADLOCK) == 1


@pytest.mark.parametrize("start", [start_process, use_pool])
@pytest.mark.parametrize(("name", "number"), CALLS)
def test_a_start_that_fails_at_any_moment_leaves_nothing(
    ctx: procflow.Context, start: Callable[[procflow.Context], None], name: str, number: int
) -> None:
    for n in range(1, MANY):
        before = Leftovers()
        fails = FailsAt(getattr(os, name), n, number)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, name, fails)
            try:
                start(ctx)
            except (OSError, ProcflowError):
                if not fails.failed:  # something else went wrong
                    raise
        before.check()
        if not fails.failed:
            return
    pytest.fail(f"a start calls os.{name} {MANY} times")


def test_all_workers_come_up_though_nobody_waits_for_them(ctx: procflow.Context) -> None:
    with ctx.Pool(7) as pool:
        engine: Any = pool._core.engine
        wait_until(lambda: len(engine._workers) == 7 and not engine.launching, "seven workers")


def test_a_pool_that_is_ended_before_its_workers_are_launched_leaves_nothing(ctx: procflow.Context) -> None:
    pool = ctx.Pool(16)
    pool.terminate()
    pool.join()
