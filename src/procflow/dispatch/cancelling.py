"""Taking back what was accepted: before it begins, or by ending the worker that runs it.

C1  What is cancelled never ran, or all its attempts have failed; only `kill` ends what runs.
C2  Of a map or a call the outcome is set once: by whoever takes its job, or its item, away from the others under the
    guard.
"""

from __future__ import annotations

from time import monotonic

from procflow.dispatch.guard import step
from procflow.engines.base import RAISED
from procflow.errors import CancelledError, PoolBusy
from procflow.scheduling.scheduler import KILLED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from procflow.dispatch.dispatcher import Dispatcher
    from procflow.dispatch.future import Future
    from procflow.dispatch.jobs import CallsJob, MapJob
    from procflow.dispatch.lead import Waking
    from procflow.dispatch.stream import StreamJob
    from procflow.engines.base import Engine
    from procflow.scheduling.scheduler import Job

__all__ = ["Cancelling"]

CUT_TIME = 1.0  # seconds: a thousand times what it takes to cut a packet short, for a machine that is busy otherwise
CUTS = 3  # one that was under way for another reason, one for the packet behind, one for what runs
KILL_PAUSE = 20e-3  # seconds between two looks at whether it has come to its end
KILL_TIME = 10.0  # seconds: many times what it takes to end a process


class Cancelling:
    """See the module."""

    def __init__(self, core: Dispatcher) -> None:
        self._core = core

    def tear(self) -> None:
        """A step was interrupted."""
        self._core.tear()

    def is_held(self, job: CallsJob | MapJob, index: int) -> bool:
        """Whether a worker holds the item; of a map (-1): any item."""
        self._core.refuse_fork()
        state = job.state
        with self._core.guard:
            if index < 0:
                return bool(state.waiting < state.added - state.resolved)
            scheduler = self._core.scheduler
            waits = any(span[0] == state.id and span[1] <= index < span[2] for span in scheduler.ready)
            return not waits and (state.id, index) not in scheduler.delayed

    def cancel(self, future: Future[Any], job: CallsJob | MapJob, index: int) -> bool:
        """Cancel what a future stands for, if none of it has begun."""
        self._core.refuse_fork()
        if self._core.amid:
            raise PoolBusy
        if index < 0:
            return self._cancel_map(future, job.state)
        engine, deadline = self._core.engine, monotonic() + CUT_TIME
        for _ in range(CUTS):
            if self._cancel_call(job, index):
                return True
            with self._core.guard:
                worker = self._core.scheduler.holder(job.state, index) or self._core.scheduler.runner(job.state, index)
                if worker is None or not engine.cuts:
                    return False
                if not engine.cutting(worker.id):  # else it was asked before, perhaps for something else
                    engine.cut(worker.id)
            self._core.wait(_Uncut(engine, worker.id), max(0.0, deadline - monotonic()))
        return self._cancel_call(job, index)

    def kill(self, future: Future[Any], job: CallsJob | MapJob, index: int) -> bool:
        """Cancel what a future stands for, and end the workers that run it."""
        self._core.refuse_fork()
        if self._core.amid:
            raise PoolBusy
        if index < 0:
            self._kill_map(future, job.state)
            return future.was_cancelled
        deadline = monotonic() + KILL_TIME
        while not future.has_outcome and not self.cancel(future, job, index):
            if not self._core.engine.expels:
                self._refuse()
                break
            if monotonic() >= deadline:
                break
            self._condemn(job.state, index, index + 1)
            self._core.wait(future, max(0.0, min(deadline - monotonic(), KILL_PAUSE)))
        return future.was_cancelled

    def _refuse(self) -> None:
        engine = self._core.engine
        if "kill" in engine.refuses:
            raise ValueError(f"kill() can't end this task on {engine!r}: {engine.refuses['kill']}")

    @step
    def _kill_map(self, future: Future[Any], state: Job) -> None:
        with self._core.guard:
            if self._core.jobs.pop(state.id, None) is None:  # it is resolved by another thread, or was long ago
                return
            self._core.scheduler.drop(state, end=True)
            self._core.wake()  # the leader ends the workers
        self._core.engine.forget(state.id)
        self._core.perform()
        self._core.fail(future, CancelledError("the map was ended by kill(); some of its tasks may have run"))

    @step
    def _condemn(self, state: Job, start: int, stop: int) -> None:
        """Have the workers ended that run one of these items."""
        with self._core.guard:
            for number, (seq, item, since) in self._core.engine.running().items():
                worker = self._core.scheduler.workers.get(number)
                packet = worker.inflight.get(seq) if worker is not None else None
                if worker is not None and packet is not None and packet.job is state and start <= item < stop:
                    self._core.scheduler.condemn(worker, packet, item, since, KILLED)
        self._core.perform()

    @step
    def end_stream(self, job: StreamJob) -> None:
        """The time of the stream, which was abandoned, is over: end the workers that run its items."""
        if self._core.foreign or self._core.amid:
            return
        with self._core.guard:
            self._core.scheduler.drop(job.state, end=True)
            self._core.wake()
        self._core.perform()

    @step
    def _cancel_call(self, job: CallsJob | MapJob, index: int) -> bool:
        """Cancel a call that waits, or is on its way to a worker, or in its pipe."""
        state = job.state
        with self._core.guard:
            scheduler = self._core.scheduler
            attempts = state.attempts.get(index, 0)
            removed = scheduler.cancel(state, index, index + 1) or scheduler.withdraw(state, index)
            while not removed and (holder := scheduler.holder(state, index)) is not None:
                seq = self._core.engine.take_back(holder.id)
                if seq is None:
                    break
                scheduler.taken_back(holder.id, seq)  # it may be on its way to another worker by now
                removed = scheduler.cancel(state, index, index + 1) or scheduler.withdraw(state, index)
        if removed:
            text = f"after {attempts} of its attempts had failed" if attempts else "before it started; it never ran"
            error = CancelledError(f"the task was cancelled {text}")
            job.deliver(self._core, index, 1, RAISED, error)
        self._core.perform()
        self._core.callbacks.run()
        return bool(removed)

    @step
    def _cancel_map(self, future: Future[Any], state: Job) -> bool:
        """A map is cancelled whole, and only while all of it waits."""
        with self._core.guard:
            if state.waiting != state.added or not state.waiting or self._core.jobs.pop(state.id, None) is None:
                return False  # else nobody but us resolves the future
            self._core.scheduler.cancel(state, 0, state.added)
        self._core.perform()
        self._core.fail(future, CancelledError("the map was cancelled before any of it started; it never ran"))
        return True


class _Uncut:
    """What `cancel` waits for: the engine knows whether a worker has obeyed."""

    waiters: list[Waking] | None = None

    def __init__(self, engine: Engine, worker: int) -> None:
        self._engine, self._worker = engine, worker

    @property
    def is_done(self) -> bool:
        return not self._engine.cutting(self._worker)

    def digest(self) -> None:
        pass
