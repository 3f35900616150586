"""Callbacks run one at a time, and none is left behind."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from procflow.dispatch.callbacks import Callbacks

if TYPE_CHECKING:
    from collections.abc import Callable

DEADLOCK = 20.0


def test_one_that_comes_while_the_runner_leaves_is_run_by_it() -> None:
    ran: list[str] = []

    class Leaving(Callbacks):
        """Another thread comes just when the one that runs them has seen that there are none."""

        came = False

        def __len__(self) -> int:
            count = super().__len__()
            if not count and ran and not self.came:
                self.came = True
                other = threading.Thread(target=self.come)
                other.start()
                other.join(DEADLOCK)
            return count

        def come(self) -> None:
            self.append(lambda: ran.append("second"))
            self.run()

    callbacks = Leaving()
    callbacks.append(lambda: ran.append("first"))
    callbacks.run()
    assert ran == ["first", "second"]


def test_who_settles_waits_for_the_thread_that_is_at_it() -> None:
    callbacks = Callbacks()
    begun, go_on = threading.Event(), threading.Event()
    ran: list[str] = []

    def first() -> None:
        begun.set()
        go_on.wait(DEADLOCK)
        ran.append("first")

    callbacks.append(first)
    runner = threading.Thread(target=callbacks.run)
    runner.start()
    assert begun.wait(DEADLOCK)
    callbacks.settle(0.0)  # it is busy for longer than that
    assert ran == []
    callbacks.append(go_on.set)  # not run here: another thread is at it
    callbacks.run()
    assert not go_on.is_set()
    threading.Timer(0.01, go_on.set).start()
    callbacks.settle(DEADLOCK)
    assert ran == ["first"]
    runner.join(DEADLOCK)


def test_a_callback_may_settle() -> None:
    callbacks = Callbacks()
    ran: list[str] = []

    def first() -> None:
        callbacks.append(lambda: ran.append("nested"))
        callbacks.settle(DEADLOCK)
        ran.append("first")

    def run(what: Callable[[], None]) -> None:
        callbacks.append(what)
        callbacks.run()

    run(first)
    assert ran == ["nested", "first"]
