"""The end of a pool: closed, terminated, joined. Each may be asked for by any thread, at any moment, and again."""

from __future__ import annotations

from procflow.dispatch.guard import step
from procflow.dispatch.stream import StreamJob
from procflow.errors import EngineError, PoolClosed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from procflow.dispatch.dispatcher import Dispatcher
    from procflow.dispatch.lead import Lead, Waking
    from procflow.scheduling.scheduler import Job

__all__ = ["Ending"]


class Ending:
    """See the module."""

    def __init__(self, core: Dispatcher) -> None:
        self._core = core
        self.closed = False  # no more work is accepted
        self.terminated = False
        self.over = False  # terminated, and nothing is left to do
        self.why = ""  # it was terminated because the engine is down, which says this of it
        self._unfinished: list[tuple[Job, int, int]] = []  # terminated, and still to be failed

    def tear(self) -> None:
        """A step was interrupted."""
        self._core.tear()

    @step
    def close(self) -> None:
        """Accept no more work; workers go when all is done."""
        if self._core.foreign:
            return
        if self._core.amid:
            self._core.lead.later(self.close)
            return
        streams: list[StreamJob] = []
        with self._core.guard:
            if not self.closed:
                self.closed = True
                streams = [job for job in self._core.jobs.values() if isinstance(job, StreamJob)]
                for calls in self._core.calls.values():
                    self._core.scheduler.close_job(calls.state)
                self._core.scheduler.close()
        for job in streams:  # nobody may come for their results before `join`; so they are no longer bounded
            job.unbounded = True
            job.refill()
        self._core.perform()
        self._core.lead.watch()

    @step
    def terminate(self) -> None:
        """End all workers now; what is not done fails with PoolClosed."""
        if self._core.foreign:
            return
        if self._core.amid:  # the processes end now; what this thread was at has to be left before the rest is done
            self.closed = True
            self._core.engine.terminate()
            self._core.tear()
            return
        with self._core.guard:
            if not self.terminated and not self._core.guard.torn:
                self.closed = self.terminated = True
                self._unfinished = self._core.scheduler.terminate()
                for job, _, _ in self._unfinished:
                    self._core.expect_of(job.id)
                self._core.wake()
        if self._core.guard.torn:
            self._end_torn()
        else:
            self._end()

    def _end_torn(self) -> None:
        """As `_end`, without a look at what the scheduler, the engine's reports and the deliveries say. Repeatable."""
        with self._core.guard:
            if self.over and not self._core.jobs and not self._core.scheduler.workers:
                return
            self.closed = self.terminated = True
            works = list(self._core.jobs.values())
            self._core.scheduler.abandon()
            self._core.put_back.clear()
            self._unfinished.clear()
            self._core.streams_read.clear()
        self._core.engine.terminate()
        for work in works:
            work.abort(
                self._core, PoolClosed("the pool was terminated, as a signal had interrupted it; the task may have run")
            )
            self._core.jobs.pop(work.id, None)
        with self._core.guard:
            self._core.scheduler.workers.clear()  # all have ended; `close` of the engine releases what they held
            self.over = True
            self._core.wake()
        self._core.callbacks.run()
        self._core.lead.watch()

    def _end(self) -> None:
        """What `terminate` has to do but once. If it is interrupted, the next `terminate` goes on with it."""
        if self.over:
            return
        self._core.perform()  # failures that were decided before
        while self._unfinished:
            job, start, stop = self._unfinished.pop()
            self._core.fail_items(job.id, start, stop, lambda _: self._error("the task may have run"))
        for job_id in list(self._core.jobs):
            work = self._core.jobs.get(job_id)
            if work is None:  # another thread is at it
                continue
            self._core.delivered(work, finishing=True)
            if isinstance(work, StreamJob):
                if not work.exhausted and work.error is None:
                    work.error = self._error("that was before the end of this stream")
                work.exhausted = True
                work.refill()
        self._core.engine.terminate()
        self.over = True
        self._core.callbacks.run()
        self._core.lead.watch()

    def _error(self, what: str) -> PoolClosed:
        return EngineError(self.why) if self.why else PoolClosed(f"the pool was terminated; {what}")

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all workers are gone, and release everything; False after `timeout` seconds."""
        if self._core.foreign:
            return True
        if self._core.guard.torn and self._core.amid:  # terminate() was called here; the processes are gone
            return True
        if not self._core.wait(_Released(self._core.lead, self._core), timeout):
            return False
        if self._core.lead.finished:  # else this thread leads, and releases everything when it is back there
            self._core.lead.stop()
        return True


class _Released:
    """What `join` waits for. Every leader looks at it after each turn; nobody has to resolve it."""

    waiters: list[Waking] | None = None

    def __init__(self, lead: Lead, core: Dispatcher) -> None:
        self._lead, self._core = lead, core
        self._nested = lead.leads_here  # the leader itself asks, from a signal handler

    @property
    def is_done(self) -> bool:
        return self._lead.finished or (self._nested and self._core.all_gone)

    def digest(self) -> None:
        pass
