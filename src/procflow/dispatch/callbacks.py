"""The callbacks of a pool's futures: run one after the other, outside every lock."""

from __future__ import annotations

import threading
from collections import deque

from procflow.start.interrupted import of_a_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Callbacks"]


class Callbacks(deque["Callable[[], object]"]):
    """A queue of what is to be called, and the rule that no two run at once: users of multiprocessing rely on it.

    Whoever appends has to see to it that somebody calls `run` soon.
    """

    def __init__(self) -> None:
        super().__init__()
        self._runner: int | None = None  # the thread that runs them

    def run(self) -> None:
        """Run what is due. If another thread is at it, that one goes on with ours.

        If it is this thread (a callback waits for a result whose own callback is due) they run nested, or it would
        wait for itself.
        """
        me = threading.get_ident()
        while self and self._runner in (None, me):  # again: what comes while the runner leaves is its own to run
            outer, self._runner = self._runner, me
            try:
                self._run_all()
            finally:
                self._runner = outer

    def settle(self, timeout: float) -> None:
        """Run what is due by now; if another thread is at it, wait until it has, for `timeout` seconds at most."""
        through = threading.Lock()
        through.acquire()
        self.append(through.release)
        self.run()
        through.acquire(timeout=timeout)

    def _run_all(self) -> None:
        while self:
            try:
                self.popleft()()
            except BaseException as error:
                if of_a_signal(error):
                    raise
                import logging  # rare, and 15 ms

                logging.getLogger("procflow").exception("a callback raised; the pool goes on")
