"""The engine over a Ray cluster: its workers run the pool's packets.

Ray knows one cluster in a process. The first engine that needs it connects, unless the program has, and then the last
one that leaves disconnects.

Y1  Ray announces no change of a cluster's size, so whoever leads looks every LOOK seconds.
"""

from __future__ import annotations

import threading
from time import monotonic

from procflow.engines.remote import Lost, RemoteEngine, missing
from procflow.errors import EngineError
from procflow.shown import told
from procflow.worker.remote import run_packet

try:
    import ray
except ModuleNotFoundError as absent:
    raise ModuleNotFoundError("RayEngine needs Ray: pip install 'procflow[ray]'", name="ray") from absent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from typing import Any

    from procflow.engines.remote import Outcome, Task

__all__ = ["RayEngine"]

LOOK = 2.0  # seconds

_lock = threading.Lock()
_users = 0  # engines that use the connection, if the first of them has made it


class RayEngine(RemoteEngine):
    """Run a pool's tasks on a Ray cluster: `Pool(engine=RayEngine("auto"))`.

    A pool of it has a worker for each CPU of the cluster, and follows it as it grows and shrinks; while there is none,
    tasks wait. Each packet of tasks takes one CPU. The workers need procflow, cloudpickle and the same Python as the
    pool; Ray sees to the latter.

    If a worker process is lost, the tasks that it had fail with `WorkerDied`, and nothing is run again unless the pool
    is told so. `terminate` ends what runs. If the cluster's head is lost, Ray ends this whole process after a minute.

    Whoever can connect to a Ray cluster can run code on it: keep its ports inside a network that you trust.

    Args:
        address: Of the cluster, as for `ray.init`; "auto" finds the one of this machine. Not used if the program is
            connected to one.
        options: Further arguments of `ray.init`.
    """

    name = "Ray cluster"
    window = 4  # a way there and back takes 1 to 2 ms

    def __init__(self, address: str = "auto", **options: Any) -> None:
        self._address, self._options = address, options

    def connect(self) -> None:
        self._joined = False
        self._seen = -1  # slots
        self._next_look = 0.0
        self._joined = _join(self._address, self._options)
        self._run = ray.remote(num_cpus=1, max_retries=0)(run_packet)
        self._survey()

    def submit(self, task: Task, done: Callable[[Outcome], None]) -> None:
        # Nothing that Ray has is ever cancelled: if its result comes at that moment, Ray 2.60 ends this whole process
        # ("Tried to complete task that was not pending").
        self._run.remote(*task).future().add_done_callback(lambda ended: done(_outcome(ended)))

    def wait(self, timeout: float | None) -> list[int]:
        left = self._next_look - monotonic()
        if left <= 0:
            self._survey()
            left = LOOK
        return super().wait(left if timeout is None else min(timeout, left))

    def _survey(self) -> None:
        """Learn how many CPUs there are."""
        slots = int(ray.cluster_resources().get("CPU", 0))
        if slots != self._seen:
            self._seen = slots
            self.resize(slots)
        self._next_look = monotonic() + LOOK

    def disconnect(self) -> None:
        joined, self._joined = self._joined, False
        if joined:
            _leave()

    def __repr__(self) -> str:
        return f"<RayEngine at {self._address}>"


def _outcome(future: Future[bytes]) -> Outcome:
    error = future.exception()
    if error is None:
        return future.result()
    why = missing(error)
    # What a task raises is in its answer; so this is Ray's own.
    return EngineError(why) if why else Lost(told(error))


def _join(address: str, options: dict[str, Any]) -> bool:
    """Connect, unless the program has; return whether `_leave` is to be called."""
    global _users
    with _lock:
        if not _users and ray.is_initialized():
            return False
        if not _users:
            try:
                ray.init(address, **options)
            except (OSError, RuntimeError) as error:  # nothing is there; another Python
                raise EngineError(f"there is no Ray cluster to use at {address}: {told(error)}") from error
        _users += 1
        return True


def _leave() -> None:
    global _users
    with _lock:
        _users -= 1
        if not _users:
            ray.shutdown()
