"""Jobs: the items of a call, and where its results go. One class for each shape of call.

    Calls    submit, apply: separate calls, each with its own Future; one such job per pool, open until it closes
    Map      map, starmap: a list in, a list out
    Stream   imap, imap_unordered (`stream.py`): an iterator in, an iterator out, both bounded

J1  `items` and `deliver` are called for disjoint ranges, `deliver` once for each item.
J2  `finish` is called once, after the last `deliver`.
J3  A signal may interrupt a `deliver`; `abort` then resolves what it has not resolved.
J4  `deliver` is never called under the pool's lock, and never runs user code.
"""

from __future__ import annotations

import threading
from collections import deque

from procflow.dispatch.future import Future
from procflow.dispatch.outcome import Failure, decode
from procflow.engines.base import OBJECTS, RAISED
from procflow.wire.packets import CALLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from procflow.dispatch.dispatcher import Dispatcher
    from procflow.scheduling.scheduler import Job

__all__ = ["CallsJob", "ItemsJob", "MapFuture", "MapJob"]


def no_function(*_: object) -> object:
    """Stand where a job has no function of its own."""
    raise AssertionError("a separate call carries its own function")


class Delivery:
    """How far a job's results are on their way to it; under the pool's lock.

    The scheduler says that a job is finished when all items are counted off. Their results may still be in the hands of
    a thread that is about to deliver them; so whichever comes last, the word or the last delivery, finishes the job.
    """

    __slots__ = ("expected", "finishing")

    def __init__(self) -> None:
        self.expected = 0  # deliveries that some thread is about to make
        self.finishing = False  # the scheduler has said that it is finished


class CallsJob:
    """See the module."""

    kind = CALLS
    grain = 1
    isolate = True
    function: Callable[..., object] = staticmethod(no_function)

    def __init__(self, job: Job) -> None:
        self.id = job.id
        self.state = job
        self.delivery = Delivery()
        self._packed: dict[int, object] = {}  # index -> the call, as the engine packed it
        self._futures: dict[int, Future[object]] = {}

    def add(self, index: int, packed: object, future: Future[object]) -> None:
        """A call was accepted."""
        self._packed[index] = packed
        self._futures[index] = future

    def items(self, start: int, stop: int) -> Sequence[object]:
        """Return the packed calls."""
        packed = self._packed
        return [packed[index] for index in range(start, stop)]

    def task_number(self, _: int) -> int:
        """A single call is task 0 of its own."""
        return 0

    def deliver(self, dispatcher: Dispatcher, start: int, items: int, kind: int, data: object) -> None:
        """`items` calls from `start` on are done with."""
        if items == 1:
            self._packed.pop(start, None)
            future = self._futures.get(start)
            if future is None:  # told before, and then interrupted
                return
            if kind == RAISED:
                future.outcome = Failure(data)  # type: ignore[arg-type]
            else:
                future.raw = (kind, data)
            dispatcher.resolve(future)
            self._futures.pop(start, None)  # only now: if Ctrl-C comes in between, `abort` has to find it
            return
        values = decode(kind, data)
        for offset in range(items):
            self._packed.pop(start + offset, None)
            future = self._futures.get(start + offset)
            if future is None:
                continue
            future.outcome = values if isinstance(values, Failure) else [values[offset]]
            dispatcher.resolve(future)
            self._futures.pop(start + offset, None)

    def finish(self, dispatcher: Dispatcher) -> None:
        """The pool closed, and every call is done."""

    def abort(self, dispatcher: Dispatcher, error: BaseException) -> None:
        """Fail what is not done."""
        for index in list(self._futures):
            self.deliver(dispatcher, index, 1, RAISED, error)


class MapFuture(Future["list[object]"]):
    """The future of a whole map: it collects the parts, and decodes them as they come if somebody waits for it."""

    __slots__ = ("_digesting", "_failed", "parts", "_values")

    def __init__(self, dispatcher: Dispatcher, job: MapJob, count: int) -> None:
        super().__init__(dispatcher, job, -1)
        self._values: list[object] = [None] * count
        self.parts: deque[tuple[int, int, int, object]] = deque()  # start, items, kind, data
        self._digesting = threading.RLock()  # held while unpickling; no other lock is taken under it
        self._failed: tuple[int, Failure] | None = None  # the lowest that failed

    def digest(self) -> None:
        parts = self.parts
        if not parts:
            return
        with self._digesting:
            while parts:
                start, items, kind, data = parts[0]
                outcome = decode(kind, data)
                if not isinstance(outcome, Failure):
                    self._values[start : start + items] = outcome
                elif self._failed is None or start < self._failed[0]:
                    self._failed = (start, outcome)
                parts.popleft()  # only now: Ctrl-C in between must not lose it

    def decode(self, raw: tuple[int, object]) -> list[Any] | Failure:
        with self._digesting:  # wait for another thread that is at the last part
            self.digest()
        return self._failed[1] if self._failed else [self._values]


class ItemsJob:
    """What a map and a stream have in common: one function, and items that are known by their places in the input."""

    def __init__(self, job: Job, function: Callable[..., object], kind: int) -> None:
        self.id = job.id
        self.state = job
        self.grain = job.grain
        self.kind = kind
        self.function = function
        self.delivery = Delivery()

    def task_number(self, index: int) -> int:
        """A task is known by the place of its item."""
        return index


class MapJob(ItemsJob):
    """See the module."""

    isolate = False

    def __init__(self, job: Job, function: Callable[..., object], kind: int, inputs: Sequence[object]) -> None:
        super().__init__(job, function, kind)
        self._inputs = inputs
        self.future: MapFuture | None = None

    def items(self, start: int, stop: int) -> Sequence[object]:
        """Return this part of the input; of a range it is a range, which pickles in a few bytes."""
        return self._inputs[start:stop]

    def deliver(self, dispatcher: Dispatcher, start: int, items: int, kind: int, data: object) -> None:
        """Keep this part of the result until the future is asked."""
        assert self.future is not None
        self.future.parts.append((start, items, kind, data))

    def finish(self, dispatcher: Dispatcher) -> None:
        """Every item is done with."""
        assert self.future is not None
        self.future.raw = (OBJECTS, None)
        self._inputs = ()
        dispatcher.resolve(self.future)

    def abort(self, dispatcher: Dispatcher, error: BaseException) -> None:
        """Fail it if it is not done."""
        if self.future is not None and not self.future.is_done:
            self.future.outcome = Failure(error)
            dispatcher.resolve(self.future)
