"""The boundary between a pool and what runs its tasks.

An engine runs *workers* (processes, or slots of something bigger), gives them packets and reports:

    ("ready", worker)
        it can take packets
    ("answer", worker, seq, seconds, final, segments)
        items of a packet are done with; the rest of a final answer is returned unbegun
    ("split", worker, seq)
        nothing of the packet began; its items must travel alone
    ("cut", worker, seq, stop)
        it was asked to `cut`: it has not begun item `stop` of this packet, nor what is behind it, and never will
    ("gone", worker, begun, item, width, pid, exitcode, text)
        it has ended, and everything it wrote was reported before

Where workers are places of a cluster:

    ("lost", worker, seq, text)
        the packet is lost, with whatever process of the cluster held it; the place is free
    ("slots", 0, count)
        so many places there are now
    ("down", 0, text)
        the cluster is gone: nothing will be reported but the end of the workers, after `terminate`

E1  `encode` and `pack_call` run user code (pickling); they are called without any lock, from any thread.
E2  `send`, `take_back`, `cut`, `retire`, `reap` are called under the pool's lock, never block and never run user code.
E3  `wait` and `collect` are called by one thread at a time, without the lock; `wake` by any thread, to end a `wait`.
E4  `wait` takes nothing away: if it is interrupted, the next one finds the same.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Literal, Protocol

    from procflow.scheduling.scheduler import Packet

    Segment = tuple[int, int, object]  # kind (VALUES, VALUE, FAILURE of wire.packets, or the two below), items, data
    Report = (
        tuple[Literal["ready"], int]
        | tuple[Literal["answer"], int, int, float, bool, list[Segment]]
        | tuple[Literal["record"], int, bytes]  # a log record, see worker.records
        | tuple[Literal["split"], int, int]
        | tuple[Literal["cut"], int, int, int]
        | tuple[Literal["gone"], int, int, int | None, int, int, int | None, str]
        | tuple[Literal["lost"], int, int, str]
        | tuple[Literal["slots"], Literal[0], int]
        | tuple[Literal["down"], Literal[0], str]
    )

    # pid; when it was launched and when it was ready (0.0: not yet), by the monotonic clock; bytes sent and received
    WorkerFacts = tuple[int, float, float, int, int]

    class Work(Protocol):
        """A job as an engine sees it."""

        id: int
        kind: int
        grain: int
        isolate: bool
        function: Callable[..., object]

        def items(self, start: int, stop: int) -> Sequence[object]:
            """Return the items `start` to `stop`; for CALLS what `pack_call` made of them."""
            ...

    class Engine(Protocol):
        """See the module."""

        inline: bool
        takes_back: bool
        cuts: bool  # it does what `cut` asks for
        expels: bool  # it does what `expel` asks for
        window: int
        most: int
        cores: int  # how many of its workers can run at once; 0: all
        stretch: float  # how much longer its packets are than a local worker's, as its way takes longer
        refuses: Mapping[str, str]  # what a user may ask for that it can't do, by the option's name, and why

        def facts(self, worker: int) -> WorkerFacts | None:
            """Return what it knows of a worker's process; None if it has none, or none of its own."""
            ...

        @property
        def launching(self) -> bool:
            """Whether workers wait for others to come up before they are launched themselves, by `wait`."""
            ...

        def pack_call(self, function: Callable[..., object], args: object, kwargs: object) -> object:
            """Make a single call ready to travel; raise what pickling raises."""
            ...

        def encode(self, work: Work, packet: Packet, oldest: int) -> object:
            """Make a packet ready to travel; raise what pickling raises."""
            ...

        def send(self, packet: Packet, encoded: object) -> bool:
            """Give it to its worker; False if there is no room now."""
            ...

        def discard(self, encoded: object) -> None:
            """An encoded packet will not be sent after all."""

        def take_back(self, worker: int, begun: int = 0) -> int | None:
            """Take the oldest unread packet of a worker; return its seq, or None if there is none.

            With `begun` only if the packet of that seq is the last that it has begun. Where taking back is not possible
            at once, ask for it: ("cut", ...) is reported when the packet is ours again.
            """
            ...

        def cut(self, worker: int) -> None:
            """Have the worker begin nothing behind what it runs, and report results that it has not sent."""

        def cutting(self, worker: int) -> bool:
            """Whether what came of `cut` is still to be reported."""
            ...

        def running(self) -> dict[int, tuple[int, int, float]]:
            """For each worker that runs an item: the packet's seq, the item, and since when, if its job has a limit."""
            ...

        def expel(self, worker: int, seq: int, item: int, since: float) -> None:
            """End the worker, and what it has started, if it still runs this item, since then.

            What it has not read was taken back before. "gone" has its stack as text.
            """

        def start(self, worker: int, slot: int) -> None:
            """Begin to start a worker in this slot; what becomes of it is reported. Called without the lock."""

        def retire(self, worker: int) -> None:
            """The worker gets nothing more: let it end when it has done what it holds."""

        def reap(self, worker: int) -> None:
            """Its end was reported and dealt with: release what it held."""

        def forget(self, job: int) -> None:
            """The job has ended."""

        def wait(self, timeout: float | None) -> list[int]:
            """Wait at most `timeout` seconds (None: for ever) for something to happen; return it for `collect`."""
            ...

        def collect(self, ready: list[int]) -> list[Report]:
            """Report what happened."""
            ...

        def hold(self) -> None:
            """Workers run dry, though there is work: from now on keep the interpreter rather than share it."""

        def wake(self) -> None:
            """End the current or the next `wait` early."""

        def fileno(self) -> int | None:
            """A descriptor that is readable when there is something to `collect`; None if there is none."""
            ...

        def terminate(self) -> None:
            """End all workers at once, whatever they do."""

        def close(self) -> None:
            """Release everything; all workers are gone."""


OBJECTS = 16  # segment: a list of values, not pickled
RAISED = 17  # segment: the exception itself
PUT_OFF = 18  # segment, made by the dispatcher: a failure that nobody gets, as the items begin again

__all__ = ["OBJECTS", "PUT_OFF", "RAISED"]
