"""The engine over any `concurrent.futures.Executor`: its workers run the pool's packets."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor, CancelledError

from procflow.engines.remote import Lost, RemoteEngine, missing
from procflow.errors import EngineError
from procflow.shown import told
from procflow.worker.remote import VERSIONS, compare, run_packet, versions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor, Future

    from procflow.engines.remote import Outcome, Task
    from procflow.worker.remote import Versions

__all__ = ["FuturesEngine"]


class FuturesEngine(RemoteEngine):
    """Run a pool's tasks on an executor: `Pool(engine=FuturesEngine(executor))`.

    A pool of it has as many workers as the executor says, or as `Pool(processes)` says. The executor stays the
    caller's, who shuts it down after the pool; several pools may use it. Its workers need procflow, cloudpickle and the
    same Python as the pool.

    If a worker dies, it is the executor that decides what else is lost: a `ProcessPoolExecutor` loses everything, so
    the pool's tasks all fail with `EngineError`.

    Args:
        executor: Whatever has the methods of `concurrent.futures.Executor`.
    """

    name = "executor"
    takes_back = True
    stretch = 4.0  # packets of 8 ms

    def __init__(self, executor: Executor) -> None:
        if not callable(getattr(executor, "submit", None)):
            raise TypeError(f"executor must be a concurrent.futures.Executor, not {type(executor).__name__}")
        self._executor = executor

    def connect(self) -> None:
        slots = self._most_slots or getattr(self._executor, "_max_workers", None)
        if not isinstance(slots, int):
            raise ValueError(
                f"{type(self._executor).__name__} doesn't say how many workers it has: give Pool the number, as "
                "Pool(processes, engine=...)"
            )

        def tell(probe: Future[Versions]) -> None:
            error = CancelledError("it was cancelled") if probe.cancelled() else probe.exception()
            fault = compare(VERSIONS, probe.result()) if error is None else missing(error) or told(error)
            if fault:
                self.fail(f"of a worker, {fault}")
            else:
                self.resize(slots)

        try:
            # Nothing else is sent before some worker has answered this.
            self._executor.submit(versions).add_done_callback(tell)
        except Exception as error:
            raise EngineError(f"the executor takes no tasks: {told(error)}") from error

    def submit(self, task: Task, done: Callable[[Outcome], None]) -> Callable[[], bool]:
        future = self._executor.submit(run_packet, *task)
        future.add_done_callback(lambda ended: done(_outcome(ended)))
        return future.cancel

    def __repr__(self) -> str:
        return f"<FuturesEngine on {self._executor!r}>"


def _outcome(future: Future[bytes]) -> Outcome:
    if future.cancelled():
        return None
    error = future.exception()
    if error is None:
        return future.result()
    # What a task raises is in its answer; so this is the executor's own.
    return error if isinstance(error, BrokenExecutor) or missing(error) else Lost(told(error))
