"""The engine over a Dask cluster: its workers run the pool's packets.

    pool's threads   `submit`: into `_outbox`
    own thread       `_serve`: the loop of an asynchronous client, in which all of Dask's objects live
                     `_flush`: what is in the outbox, as one graph; `_follow`: one answer, then its future is released
                     `_survey`: the workers, and their versions; `_watch`: whether the scheduler is there

K1  No task is sent to a worker whose versions are not known to be the pool's. One that has just come may get one all
    the same; `run_packet` refuses it there, and from then on tasks name the workers that they may go to.
K2  Workers that come and go are announced, and counted each second as well: what is announced while the subscription is
    on its way to the scheduler is lost, and tasks would wait for ever for a worker that is there.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections import deque
from concurrent.futures import CancelledError, Future
from contextlib import suppress

from procflow.engines.remote import Lost, RemoteEngine, missing, refused
from procflow.errors import EngineError
from procflow.shown import told
from procflow.worker.remote import VERSIONS, compare, run_packet, versions

try:
    from distributed import Client
except ModuleNotFoundError as absent:
    raise ModuleNotFoundError("DaskEngine needs Dask: pip install 'procflow[dask]'", name="distributed") from absent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from distributed import Future as DaskFuture
    from distributed import Security

    from procflow.engines.remote import Outcome, Task

    Waiting = tuple[Task, Callable[[Outcome], None]]

__all__ = ["DaskEngine"]

CLOSE_TIME = 2.0  # seconds
LOOK = 0.25  # seconds
LOOKS_PER_SURVEY = 4
CHANGES = ("add-worker", "remove-worker")  # what the scheduler announces under the topic "all"


class DaskEngine(RemoteEngine):
    """Run a pool's tasks on a Dask cluster: `Pool(engine=DaskEngine("tls://scheduler:8786", security=...))`.

    A pool of it has a worker for each thread of the cluster's workers, and follows the cluster as it grows and shrinks;
    while there is none, tasks wait. The workers need procflow, cloudpickle and the same Python as the pool.

    Dask begins a task again, on another worker, when the one that had it is lost, up to
    `distributed.scheduler.allowed-failures` times; so tasks should be such that this does no harm. Then it fails with
    `WorkerDied`. If the scheduler is lost, all of the pool's tasks fail with `EngineError`.

    Whoever can connect to a scheduler without TLS can run code on all of its workers.

    Args:
        cluster: The scheduler's address, or a `distributed.Client` or cluster object of it. The pool opens a client of
            its own, and closes it.
        security: A `distributed.Security`: certificates for an address that begins with tls://.
        timeout: Seconds to wait for the scheduler; by default as Dask is configured.
    """

    name = "Dask cluster"
    window = 8  # a way there and back takes 10 ms

    def __init__(self, cluster: object, *, security: Security | None = None, timeout: float | None = None) -> None:
        if not isinstance(cluster, str):
            owner: Any = cluster
            cluster = owner.scheduler.address if isinstance(cluster, Client) else owner.scheduler_address
            security = security or owner.security
        self._address, self._security, self._timeout = cluster, security, timeout

    def connect(self) -> None:
        self._outbox: deque[Waiting] = deque()  # appended by any thread
        self._numbers = itertools.count(1)
        self._faults: dict[str, str] = {}  # what keeps a worker from running tasks, by its address; nothing: ""
        self._only: list[str] | None = None  # workers that tasks may go to, if not to all
        self._tasks: set[asyncio.Task[None]] = set()  # that run in the loop; it holds them weakly
        opened: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(opened)), name="procflow-dask")
        self._thread.daemon = True
        self._thread.start()
        try:
            opened.result()
        except EngineError:
            raise
        except OSError as error:
            raise EngineError(f"there is no Dask scheduler at {self._address}: {told(error)}") from error

    def submit(self, task: Task, done: Callable[[Outcome], None]) -> None:
        self._check_running()
        self._outbox.append((task, done))
        self._loop.call_soon_threadsafe(self._flush)

    def _check_running(self) -> None:
        if self._client.status != "running":
            raise EngineError("the connection to its scheduler is closed")

    def disconnect(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._left.set)
        except (AttributeError, RuntimeError):  # it was never opened, or has ended
            pass
        self._thread.join()

    # -- in the own thread --------------------------------------------------------------------------------------------

    async def _serve(self, opened: Future[None]) -> None:
        self._loop, self._left = asyncio.get_running_loop(), asyncio.Event()
        self._surveying = asyncio.Lock()
        limit = {} if self._timeout is None else {"timeout": self._timeout}
        client = Client(
            self._address, security=self._security, asynchronous=True, set_as_default=False, name="procflow", **limit
        )
        try:
            self._client = await client
            client.subscribe_topic("all", self._note)
            await self._survey()
            if self._only is not None:
                raise EngineError(_describe(self._faults))
            self._begin_task(self._watch())
            opened.set_result(None)
        except BaseException as error:  # noqa: BLE001 - it is raised where the engine is opened
            opened.set_exception(error)
        else:
            await self._left.wait()
            client.unsubscribe_topic("all")
        finally:
            with suppress(Exception):  # the scheduler is gone
                await asyncio.wait_for(client.close(), CLOSE_TIME)

    def _begin_task(self, coroutine: Any) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _flush(self) -> None:
        batch: list[Waiting] = []
        while self._outbox:
            batch.append(self._outbox.popleft())
        if not batch:  # an earlier call has taken this one's
            return
        packets, slots = [task[0] for task, _ in batch], [task[1] for task, _ in batch]
        pool = batch[0][0][2]
        keys = [f"procflow-{pool[1]}-{next(self._numbers)}" for _ in batch]
        try:
            self._check_running()
            futures = self._client.map(run_packet, packets, slots, key=keys, workers=self._only, pure=False, pool=pool)
        except Exception as error:  # noqa: BLE001 - somebody else's code
            for _, done in batch:
                done(EngineError(told(error)))
            return
        for future, (_, done) in zip(futures, batch, strict=True):
            self._begin_task(self._follow(future, done))

    async def _follow(self, future: DaskFuture, done: Callable[[Outcome], None]) -> None:
        try:
            answer: bytes = await future
            if refused(answer):  # the worker has come since the last survey, and is none for us
                await self._survey()
                done(None)
            else:
                done(answer)
        except (CancelledError, asyncio.CancelledError) as error:  # of the future; of this coroutine as the loop ends
            lost = self._client.status != "running"
            done(EngineError(f"its scheduler is gone ({error})") if lost else None)
        except Exception as error:  # noqa: BLE001 - what a task raises is in its answer; so this is Dask's own
            why = missing(error)
            done(EngineError(why) if why else Lost(told(error)))
        finally:
            future.release()

    def _note(self, event: tuple[float, dict[str, object]]) -> None:
        """The scheduler announces something."""
        if event[1].get("action") in CHANGES:
            self._begin_task(self._survey())

    async def _survey(self) -> None:
        """Learn which workers there are, and whether they fit."""
        async with self._surveying:
            client = self._client
            threads = await client.nthreads()
            fresh = [address for address in threads if address not in self._faults]
            if fresh:
                found = await client.run(versions, workers=fresh, on_error="return")
                # Who can't be reached is about to be removed, or is asked again.
                reached = {address: told_by for address, told_by in found.items() if not isinstance(told_by, OSError)}
                self._faults |= {address: _fault(told_by) for address, told_by in reached.items()}
            self._faults = {address: fault for address, fault in self._faults.items() if address in threads}
            fit = [address for address, fault in self._faults.items() if not fault]
            self._only = fit if len(fit) < len(self._faults) else None
            if any(self._faults.get(address) for address in fresh):
                logging.getLogger("procflow").warning("%s; no task goes there", _describe(self._faults))
            self.resize(sum(threads[address] for address in fit))

    async def _watch(self) -> None:
        """Look whether the scheduler is there: a client whose connection breaks tells nobody who waits for nothing.

        And count the workers (K2).
        """
        for look in itertools.count():
            await asyncio.sleep(LOOK)
            if self._client.status != "running":
                break
            if look % LOOKS_PER_SURVEY == 0 and not self._surveying.locked():
                self._begin_task(self._survey_again())
        self.fail("its scheduler is gone")

    async def _survey_again(self) -> None:
        with suppress(OSError):  # the scheduler is gone, which `_watch` will tell
            await self._survey()

    def __repr__(self) -> str:
        return f"<DaskEngine at {self._address}>"


def _fault(told_by: object) -> str:
    """What keeps a worker from running tasks, by what it said of its versions."""
    if isinstance(told_by, BaseException):
        return missing(told_by) or f"it can't tell its versions ({told(told_by)})"
    return compare(VERSIONS, tuple(told_by))  # type: ignore[arg-type]


def _describe(faults: dict[str, str]) -> str:
    return "; ".join(f"of worker {address} of the Dask cluster, {fault}" for address, fault in faults.items() if fault)
