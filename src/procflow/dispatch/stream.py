"""Streams: imap and imap_unordered. Input is read as room allows, results wait until the consumer comes for them.

    room = read-ahead - (items read - items consumed)    the scheduler's `room`; the consumer's pace stops the producer

T1  At most `room` items are read beyond what the consumer took; with `buffersize` given, never more than that.
T2  The input is read by one thread: the consumer's for a list, tuple or range, which can't block; else a feeder thread,
    so that an input that blocks does not keep ready results from the consumer.
T3  What the input raises is raised by `next` after the results of all items before it.
T4  After the last result, after `close`, and when the iterator is dropped, the input is read no more.
T5  What Ctrl-C interrupts loses no result: a part is kept (`part`) until its values are in the consumer's list.
"""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic, perf_counter

from procflow.dispatch.jobs import ItemsJob
from procflow.dispatch.lead import remaining
from procflow.dispatch.outcome import Failure, decode
from procflow.dropping import when_dropped
from procflow.errors import PoolClosed, TimeoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
    from typing import Generic, Protocol, TypeVar

    from procflow.dispatch.dispatcher import Dispatcher
    from procflow.dispatch.lead import Waking
    from procflow.scheduling.scheduler import Job

    T_co = TypeVar("T_co", covariant=True)

    class Counting(Protocol):
        """Counts results; see `observe/progress.py`."""

        def count(self) -> None: ...

        def end(self) -> None: ...

else:
    from procflow.generic import Generic

    T_co = None


__all__ = ["Feeder", "ResultIterator", "StreamJob", "sequence_refill"]

_TELL = 200e-6  # seconds
REFILL = 16  # values: how often a stream with a buffersize looks for room while it gives out the values of a part
CLOSING = 100_000  # items: so far an iterator is read ahead when its pool was closed


class StreamJob(ItemsJob):
    """A stream as engine and dispatcher see it. `_lock` is the dispatcher's; what it guards is said beside it."""

    isolate = True

    def __init__(
        self,
        job: Job,
        function: Callable[..., object],
        kind: int,
        dispatcher: Dispatcher,
        buffersize: int | None,
        ordered: bool,
    ) -> None:
        super().__init__(job, function, kind)
        self.buffersize = buffersize
        self._dispatcher = dispatcher
        self._ordered = ordered
        self.inputs: dict[int, object] = {}  # items that are not done with
        self.read = 0  # items read; written by the one thread that reads
        self.exhausted = False  # nothing more is to be read
        self._parts: deque[tuple[int, int, int, object]] = deque()  # unordered: as they came
        self._places: dict[int, tuple[int, int, int, object]] = {}  # ordered: by start
        self._next = 0  # ordered: the start of the part that the consumer gets next
        self.consumed = 0  # items whose parts the consumer took; under the lock
        self.ended = False  # every item is done with, and there will be no more
        self.error: BaseException | None = None  # what the input raised
        self.abandoned = False
        self.part: tuple[int, object, int] | None = None  # kind, data, items; T5
        self.values: list[object] = []  # decoded, not yet given out; the last is the next
        self.unbounded = False  # the pool was closed: read on though nobody takes results
        self.refill: Callable[[], None] = _nothing  # read more if there is room, or tell the feeder to
        self.is_done = False  # for `wait`: something is there for the consumer, or it is the end
        self.waiters: list[Waking] | None = None

    def items(self, start: int, stop: int) -> Sequence[object]:
        """Return these inputs."""
        inputs = self.inputs
        return [inputs[index] for index in range(start, stop)]

    def room(self) -> int:
        """How many items may be read now."""
        held = self.read - self.consumed
        if self.buffersize is not None:  # T1: a part that was taken is the consumer's as its values are given out
            held += len(self.values) + (self.part[2] if self.part is not None else 0)
        return self._dispatcher.room(self, held)

    def add(self, items: Sequence[object]) -> None:
        """Items were read; called by the one thread that reads. The scheduler learns of them by `sync`."""
        start = self.read
        self.inputs.update(zip(range(start, start + len(items)), items, strict=True))
        self.read = start + len(items)

    def unseen(self) -> int:
        """How many items the scheduler is to be told of: whole chunks, but for the last."""
        count = self.read - self.state.added
        return count if self.exhausted else count - count % self.grain

    def deliver(self, dispatcher: Dispatcher, start: int, items: int, kind: int, data: object) -> None:
        """Keep this part for the consumer."""
        for index in range(start, start + items):
            self.inputs.pop(index, None)
        if self._ordered:
            self._places[start] = (start, items, kind, data)
            if start != self._next:
                return
        else:
            self._parts.append((start, items, kind, data))
        dispatcher.resolve_stream(self)

    def finish(self, dispatcher: Dispatcher) -> None:
        """Every item is done with."""
        self.ended = True
        dispatcher.resolve_stream(self)

    def abort(self, dispatcher: Dispatcher, error: BaseException) -> None:
        """End it: what came before is still the consumer's."""
        if not self.ended:
            self.error = self.error or error
            self.exhausted = True
            self.refill()
            self.finish(dispatcher)

    def take(self) -> bool:
        """Make the next part the consumer's; False if there is none now. Under the lock."""
        # Cleared before we look: a delivery after the look sets it again, and must not be undone.
        self.is_done = False
        if self._ordered:
            part = self._places.pop(self._next, None)
            if part is not None:
                self._next += part[1]
            more = self._next in self._places
        else:
            part = self._parts.popleft() if self._parts else None
            more = bool(self._parts)
        if more or self.ended:
            self.is_done = True
        if part is None:
            return False
        self.consumed += part[1]
        self.part = part[2], part[3], part[1]
        return True

    def digest(self) -> None:
        """Nothing to do early: the consumer decodes what it takes."""


class NothingYet(TimeoutError):
    """No result came within the time. (A task may raise TimeoutError, too.)"""


class ResultIterator(Generic[T_co]):
    """The results of imap or imap_unordered. Dropping it, or `close()`, ends the stream.

    `next(timeout)` is multiprocessing's: it raises `TimeoutError` if no result comes within `timeout` seconds.
    """

    def __init__(self, job: StreamJob, dispatcher: Dispatcher) -> None:
        self._job = job
        self._dispatcher = dispatcher
        self.counter: Counting | None = None  # is told of what is given out
        self._deadline: float | None = None  # of the stream as a whole
        self._time = 0.0  # seconds from its begin to that
        self._when_dropped = when_dropped(self, _left_behind, job, dispatcher)

    def __iter__(self) -> Iterator[T_co]:
        return self

    def __aiter__(self) -> AsyncIterator[T_co]:
        return self

    async def __anext__(self) -> T_co:
        """Return the next result, as `next`, without blocking the asyncio loop."""
        while True:
            try:
                return self.next(0)
            except NothingYet:
                left = None if self._deadline is None else max(0.0, self._deadline - monotonic())
            except StopIteration:
                raise StopAsyncIteration from None
            await self._dispatcher.sleep(self._job, left)

    def limit(self, timeout: float) -> None:
        """Let the stream take so many seconds from now, as a whole."""
        self._deadline = monotonic() + timeout
        self._time = timeout

    def next(self, timeout: float | None = None) -> T_co:
        """Return the next result, waiting for it at most `timeout` seconds.

        Raises:
            StopIteration: There are no more.
            TimeoutError: None came in time; the stream goes on.
            Exception: What this item's task raised; the next call goes on with the next item.
        """
        if self._deadline is not None:
            return self._limited(self._deadline, timeout)
        if self.counter is not None:
            return self._counted(self.counter, timeout)
        return self._next(timeout)

    def _limited(self, deadline: float, timeout: float | None) -> T_co:
        left = max(0.0, deadline - monotonic())
        asked = left if timeout is None else min(timeout, left)
        try:
            return self._next(asked) if self.counter is None else self._counted(self.counter, asked)
        except NothingYet:
            if monotonic() < deadline:
                raise
            self.close()
            self._dispatcher.cancelling.end_stream(self._job)
            raise TimeoutError(
                f"the stream was not done within {self._time} s, so it was ended. Allow it more time, or each task a "
                "limit of its own: options(timeout=)"
            ) from None

    def _next(self, timeout: float | None) -> T_co:
        job, dispatcher = self._job, self._dispatcher
        values = job.values
        if values:
            value = values[-1]
            del values[-1]  # not pop(): a signal handler may run after a call, and the value would be lost
            if job.buffersize is not None and len(values) % REFILL == 0:
                job.refill()
            return value  # type: ignore[return-value]
        deadline = None if timeout is None else monotonic() + timeout
        while not job.abandoned:
            if job.part is not None or dispatcher.take_part(job):
                job.refill()
                assert job.part is not None
                outcome = decode(*job.part[:2])
                if isinstance(outcome, Failure):
                    error = _for_iterator(outcome.error)
                    job.part = None
                    raise error
                job.values, job.part = outcome[::-1], None
                return self._next(0.0)
            if job.ended:
                break
            job.refill()
            if job.is_done:
                continue
            if not dispatcher.wait(job, remaining(deadline)):
                raise NothingYet(f"no result within {timeout} s; the stream goes on, so you can ask again")
        return self._end()

    __next__ = next

    def _counted(self, counter: Counting, timeout: float | None) -> T_co:
        try:
            result = self._next(timeout)
        except StopIteration:
            counter.end()
            raise
        except NothingYet:
            raise
        except Exception:
            counter.count()
            raise
        counter.count()
        return result

    def _end(self) -> T_co:
        error, self._job.error = self._job.error, None
        self.close()
        if error is not None:
            raise error
        raise StopIteration

    @property
    def ended(self) -> bool:
        """Whether all of its tasks are done with. Results may still be there to be taken."""
        return self._job.ended

    def close(self) -> None:
        """End the stream: no more input is read, and what has not begun is not run."""
        if self.counter is not None:
            self.counter.end()
        if not self._job.abandoned:
            self._job.abandoned = True
            self._dispatcher.abandon(self._job)
        self._when_dropped.detach()

    def __repr__(self) -> str:
        job = self._job
        state = "ended" if job.ended or job.abandoned else "running"
        return f"<ResultIterator {state}: {job.state.added} items read, {job.consumed} results taken>"


def _left_behind(job: StreamJob, dispatcher: Dispatcher) -> None:
    """The consumer has dropped the iterator before its end."""
    if not job.abandoned and not job.ended:
        job.abandoned = True
        dispatcher.abandon_later(job)


def _nothing() -> None:
    """Stand where there is no input to read."""


def _for_iterator(error: BaseException) -> BaseException:
    """PEP 479: a StopIteration from a task must not end the consumer's loop silently."""
    if not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError("a task raised StopIteration")
    wrapped.__cause__ = error
    return wrapped


def sequence_refill(job: StreamJob, dispatcher: Dispatcher, inputs: Sequence[object]) -> Callable[[], None]:
    """Return a function that reads what there is room for from a list, tuple or range; the consumer calls it."""

    def refill() -> None:
        if job.exhausted:
            return
        room, position = job.room(), job.read
        if position + room < len(inputs):
            room -= room % job.grain
        if room > 0:
            job.add(inputs[position : position + room])
        job.exhausted = job.read >= len(inputs)
        if room > 0 or job.exhausted:
            dispatcher.sync(job)

    return refill


class Feeder:
    """Reads an arbitrary iterable in a thread of its own, as far as there is room.

    What it has read is never kept back while the iterable blocks: the scheduler is told every `_TELL` seconds by the
    feeder, and every `FEEDING_TICK` by whoever leads. It knows the job, not the user's iterator, so that dropping that
    stops it.
    """

    def __init__(self, job: StreamJob, dispatcher: Dispatcher, iterable: Iterable[object]) -> None:
        self._job = job
        self._dispatcher = dispatcher
        self._iterator = iter(iterable)
        self._go = threading.Lock()  # a binary semaphore: released when there may be room again
        self._thread = threading.Thread(target=self._run, name="procflow-feeder", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._go.acquire()
        self._thread.start()

    def nudge(self) -> None:
        """There may be room."""
        try:
            self._go.release()
        except RuntimeError:  # it was nudged already
            pass

    def _run(self) -> None:
        job, dispatcher = self._job, self._dispatcher
        dispatcher.feeding(job, True)
        try:
            self._read_all()
        except BaseException as error:  # noqa: BLE001 - the input's own error: the consumer gets it
            job.error = error
            job.read -= (job.read - job.state.added) % job.grain  # its chunk was not complete
        self._iterator = iter(())
        job.exhausted = True
        dispatcher.feeding(job, False)
        dispatcher.sync(job)

    def _read_all(self) -> None:
        job, dispatcher, inputs = self._job, self._dispatcher, self._job.inputs
        limit, due = 0, 0.0
        for item in self._iterator:
            index = job.read
            inputs[index] = item
            job.read = index + 1
            if perf_counter() >= due:
                dispatcher.sync(job)
                due = perf_counter() + _TELL
            if index + 1 >= limit and not job.exhausted:
                limit = self._wait_for_room()
            if job.exhausted:
                break

    def _wait_for_room(self) -> int:
        """Wait until more may be read; return up to which index."""
        job = self._job
        while True:
            room = job.room()
            if job.unbounded:
                room = min(room, CLOSING - (job.read - job.consumed))
                if room <= 0 and not job.exhausted:  # endless, it seems, and nobody takes results: let `join` end
                    job.error = PoolClosed(
                        f"the pool was closed while this stream's input was still being read; after {CLOSING} items "
                        "whose results nobody took, it is read no more. Take the results before close()"
                    )
                    job.exhausted = True
            if room > 0 or job.exhausted:
                return job.read + room
            self._dispatcher.feeding(job, False)
            self._dispatcher.sync(job)
            self._go.acquire()
            self._dispatcher.feeding(job, True)
