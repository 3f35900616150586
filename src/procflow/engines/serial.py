"""The serial engine: tasks run in the thread that asks for them. For debugging (pdb works), tests and platforms
without processes.

Arguments and results are not pickled: a task gets the caller's own objects.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from time import perf_counter, sleep

from procflow.engines.base import OBJECTS, RAISED
from procflow.engines.setup import Setup
from procflow.errors import WorkerDied
from procflow.wire.packets import AGAIN, CALLS, STAR
from procflow.worker.attempts import Again, ExitAgain, Retried
from procflow.worker.task import tell_in_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from procflow.engines.base import Report, Segment, Work, WorkerFacts
    from procflow.scheduling.scheduler import Packet
    from procflow.worker.task import Place

__all__ = ["SerialEngine"]

NAP = 10e-3  # seconds
INSTEAD = ": leave it out, or use engine='local'"


class SerialEngine:
    """One worker, which is whoever polls."""

    launching = False
    inline = True
    takes_back = False
    cuts = False
    expels = False
    window = 1
    most = 1
    cores = 0
    stretch = 1.0
    refuses: Mapping[str, str] = {
        "timeout": "tasks run in the thread that waits for them, so nothing can end one" + INSTEAD,
        **dict.fromkeys(
            ["env", "threads_per_worker", "cpu_affinity"],
            "tasks run in this very process, whose environment, threads and processors are the program's own" + INSTEAD,
        ),
    }

    def __init__(self, setup: Setup | None = None) -> None:
        self._setup = setup or Setup()
        self._context: AbstractContextManager[object, bool | None] | None = None  # while a worker is in it
        self._worker = 0  # the one that is ready
        self._reports: deque[Report] = deque()
        self._packets: deque[tuple[Packet, Work]] = deque()

    def open(self, setup: Setup, processes: int | None) -> SerialEngine:
        """Return an engine for one pool, which has one worker whatever `processes` is."""
        return SerialEngine(setup)

    def __repr__(self) -> str:
        return "engine='serial'"

    def pack_call(self, function: Callable[..., object], args: object, kwargs: object) -> object:
        return function, args, kwargs

    def encode(self, work: Work, packet: Packet, oldest: int) -> object:
        return work

    def send(self, packet: Packet, encoded: object) -> bool:
        self._packets.append((packet, encoded))  # type: ignore[arg-type]
        return True

    def discard(self, encoded: object) -> None:
        pass

    def take_back(self, worker: int, begun: int = 0) -> int | None:
        return None

    def cut(self, worker: int) -> None:
        pass

    def cutting(self, worker: int) -> bool:
        return False

    def running(self) -> dict[int, tuple[int, int, float]]:
        return {}

    def facts(self, worker: int) -> WorkerFacts | None:
        return None

    def expel(self, worker: int, seq: int, item: int, since: float) -> None:
        pass

    def hold(self) -> None:
        pass

    def start(self, worker: int, slot: int) -> None:
        setup = self._setup
        raised = "initializer"
        try:
            if setup.initializer is not None:
                setup.initializer(*setup.initargs)
            raised = "worker_context"
            if setup.context is not None:
                context = setup.context()
                context.__enter__()
                self._context = context
        except Exception as error:  # noqa: BLE001 - reported as a worker that could not start
            self._reports.append(("gone", worker, 0, None, 1, os.getpid(), 1, _told(raised, error)))
        else:
            self._worker = worker
            self._reports.append(("ready", worker))

    def retire(self, worker: int) -> None:
        self._reports.append(("gone", worker, 0, None, 1, os.getpid(), 0, ""))

    def reap(self, worker: int) -> None:
        pass

    def forget(self, job: int) -> None:
        pass

    def wait(self, timeout: float | None) -> list[int]:
        if timeout and not self._packets and not self._reports:
            sleep(min(timeout, NAP))  # something is to begin again later; or another thread is at it
        return []

    def collect(self, ready: list[int]) -> list[Report]:
        if not self._reports and self._packets:
            packet, work = self._packets.popleft()
            run = _Run(work, packet, self._setup.seed)
            before = tell_in_thread(run.place)
            began = perf_counter()
            try:
                segments = run.segments()
            except BaseException as error:  # Ctrl-C in a task: it is the caller's, and ends these tasks too
                interrupted: list[Segment] = [(RAISED, 1, error)] * (packet.stop - packet.start)
                self._reports.append(("answer", packet.worker, packet.seq, 0.0, True, interrupted))
                raise
            finally:
                tell_in_thread(before)
            return [("answer", packet.worker, packet.seq, perf_counter() - began, True, segments)]
        reports = list(self._reports)
        self._reports.clear()
        if self._context is not None and any(report[0] == "gone" for report in reports):
            self._leave_context(self._context)
        return reports

    def _leave_context(self, context: AbstractContextManager[object, bool | None]) -> None:
        """What it raises is shown, as it is when a worker process ends, and is no task's error."""
        self._context = None
        try:
            context.__exit__(None, None, None)
        except Exception as error:  # noqa: BLE001 - the user's
            sys.excepthook(type(error), error, error.__traceback__)

    def wake(self) -> None:
        pass

    def fileno(self) -> int | None:
        return None

    def terminate(self) -> None:
        self._packets.clear()
        self.retire(self._worker)

    def close(self) -> None:
        pass


class _Run:
    """A packet that is being run."""

    def __init__(self, work: Work, packet: Packet, seed: int) -> None:
        self._work, self._packet, self._seed = work, packet, seed
        self._index = packet.start  # of the item that runs

    def place(self) -> Place:
        """Where it is; see `worker.task`."""
        index, packet = self._index, self._packet
        attempt = packet.attempt if index == packet.start else 1
        return 0 if self._work.kind == CALLS else index, attempt, 0, self._seed, packet.job.id, index

    def segments(self) -> list[Segment]:
        """Run the items of the packet as a worker does: after a failure the rest of its chunk is passed over."""
        work, packet = self._work, self._packet
        segments: list[Segment] = []
        values: list[object] = []
        items = work.items(packet.start, packet.stop)
        function = items[0][0] if work.kind == CALLS else work.function  # type: ignore[index]
        if isinstance(function, Retried):
            function.attempt = packet.attempt
        while (index := self._index) < packet.stop:
            try:
                values.append(_call(work, items[index - packet.start]))
                self._index = index + 1
            except BaseException as error:
                if isinstance(error, (KeyboardInterrupt, GeneratorExit)):
                    raise
                if values:
                    segments.append((OBJECTS, len(values), values))
                    values = []
                passed = min(work.grain - (index - packet.start) % work.grain, packet.stop - index)
                again = AGAIN if isinstance(error, (Again, ExitAgain)) else 0
                raised = error.error if isinstance(error, Again) else _as_failure(work, index, error)
                segments.append((RAISED | again, passed, raised))
                self._index = index + passed
        if values:
            segments.append((OBJECTS, len(values), values))
        return segments


def _call(work: Work, item: object) -> object:
    if work.kind == CALLS:
        function, args, kwargs = item  # type: ignore[misc]
        return function(*args, **kwargs)  # type: ignore[has-type]
    if work.kind == STAR:
        return work.function(*item)  # type: ignore[misc]
    return work.function(item)


def _as_failure(work: Work, index: int, error: BaseException) -> BaseException:
    """sys.exit() ends a worker; here it only fails the task in the same way."""
    if not isinstance(error, SystemExit):
        return error
    code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    died = WorkerDied(0 if work.kind == CALLS else index, os.getpid(), code, True)
    died.__cause__ = error
    return died


def _told(what: str, error: BaseException) -> str:
    import traceback

    return f"Its {what} raised:\n" + "".join(traceback.format_exception(error))
