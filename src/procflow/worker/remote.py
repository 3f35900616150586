"""What runs a pool's packets in a process that is not the pool's own: a worker of a cluster, or of somebody's executor.

    the pool's process                        the other one
    run_packet(packet, ...)              ---> compare versions, the pool's initializer once, run the packet
    frames, as in a local worker's pipe  <--- whatever its tasks do ends in these; an exception is the cluster's own

O1  Nothing of the user's is unpickled before the versions are compared.
O2  A pool's initializer runs once in a process: the threads that come meanwhile wait for it. If it fails, the packet
    fails, and the next one tries again, up to INIT_ATTEMPTS times.
O3  A runner runs one packet at a time; there are as many as a process runs packets of one pool at once.
"""

from __future__ import annotations

import sys
from threading import Lock
from time import perf_counter
from traceback import format_exception

from procflow.errors import InitializerError
from procflow.wire.packets import ANSWER, FRAME, ISOLATE, RECORD, REFUSED, TASK
from procflow.wire.pickling import loads
from procflow.wire.pieces import Loose, Pieces
from procflow.worker.answer import Answer
from procflow.worker.records import send_in_thread
from procflow.worker.run import Runner
from procflow.worker.status import LOG_SIZE, LOG_START
from procflow.worker.task import tell_in_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    Versions = tuple[str, str]  # Python's, without the last number; procflow's
    PoolFacts = tuple[Versions, str, int, bytes]  # versions, name, seed, and the initializer, pickled

__all__ = ["VERSIONS", "compare", "run_packet", "versions"]

VERSIONS: Versions = (f"{sys.version_info[0]}.{sys.version_info[1]}", sys.modules["procflow"].__version__)
HAND_BACK = 0.1  # seconds, see worker.answer; a way to a cluster and back takes milliseconds
INIT_ATTEMPTS = 3
WARM = 8  # pools whose functions are kept in a process for their next packets


def run_packet(packet: bytes, slot: int, pool: PoolFacts) -> bytes:
    """Run a packet, and return its answer: frames."""
    theirs, name, seed, initializer = pool
    refusal = compare(theirs, VERSIONS)
    if refusal:
        text = refusal.encode()
        return FRAME.pack(len(text), REFUSED) + text
    home = _homes.get(name) or _open_home(name)
    try:
        runner, frames = home.idle.pop()
    except IndexError:
        frames = _Frames()
        runner = Runner(frames.page, frames, _InBand, seed=seed)
    failed = home.initialize(initializer)
    if failed is None:
        runner.slot = slot
        send_in_thread(frames.add_record, slot)
        before = tell_in_thread(runner.place)
        try:
            runner.run(packet)
        finally:
            tell_in_thread(before)
    else:
        _refuse(frames, packet, failed)
    home.idle.append((runner, frames))
    return frames.take()


def versions() -> Versions:
    """Say which versions run here."""
    return VERSIONS


def compare(pools: Versions, workers: Versions) -> str:
    """Say in words what keeps such a worker from running the pool's tasks; "" if nothing does.

    Functions and classes that travel by value are bytecode, which another Python crashes on.
    """
    if pools == workers:
        return ""
    return (
        f"it has Python {workers[0]} and procflow {workers[1]}, the pool Python {pools[0]} and procflow {pools[1]}. "
        "Functions travel as bytecode, so both need the same: start the workers from an environment like the pool's"
    )


class _Home:
    """A pool in this process."""

    def __init__(self) -> None:
        self.idle: list[tuple[Runner, _Frames]] = []
        self._lock = Lock()
        self._succeeded = False
        self._failed: list[str] = []  # why, for each attempt

    def initialize(self, packed: bytes) -> InitializerError | None:
        """Call the initializer, if nobody has; return what came of it."""
        if packed and not self._initialized():
            with self._lock:
                if not self._initialized() and len(self._failed) < INIT_ATTEMPTS:
                    self._attempt(packed)
                if not self._initialized():
                    return InitializerError(len(self._failed), self._failed[-1])
        return None

    def _initialized(self) -> bool:
        return self._succeeded  # another thread may have changed it

    def _attempt(self, packed: bytes) -> None:
        try:
            function, arguments = loads(packed)
            function(*arguments)
        except BaseException as error:  # noqa: BLE001 - an initializer may raise anything, SystemExit too
            self._failed.append("Its initializer raised:\n" + "".join(format_exception(error)))
        else:
            self._succeeded = True


_homes: dict[str, _Home] = {}  # those of pools that have ended stay: a few bytes each, but for the last ones


def _open_home(pool: str) -> _Home:
    for old in list(_homes.values())[:-WARM]:
        old.idle.clear()
    return _homes.setdefault(pool, _Home())


class _Frames(Answer):
    """An answer that is kept, not written."""

    hand_back = HAND_BACK

    def __init__(self) -> None:
        self.page = memoryview(bytearray(LOG_START)).cast("Q")
        super().__init__(-1, self.page, memoryview(bytearray(LOG_SIZE)), _NoBlocks)
        self._kept: list[bytes] = []

    def _send(self, *parts: bytes) -> None:
        self._kept += (FRAME.pack(sum(map(len, parts)), ANSWER), *parts)

    def add_record(self, record: bytes) -> None:
        """Keep a log record of one of the tasks."""
        self._kept += (FRAME.pack(len(record), RECORD), record)

    def take(self) -> bytes:
        """Return the frames since the last call."""
        frames = b"".join(self._kept)
        self._kept.clear()
        return frames


class _NoBlocks:
    """No memory is shared with another machine: what is big goes in the frame."""

    @staticmethod
    def store(pieces: Pieces) -> bytes | None:
        return None


class _InBand:
    """A big packet has all in itself."""

    @staticmethod
    def parcel(data: memoryview) -> Loose:
        return Loose(data)


def _refuse(answer: Answer, packet: bytes, failed: InitializerError) -> None:
    """Fail all items of the packet."""
    seq, _, _, start, count, grain, _, flags, _, _ = TASK.unpack_from(packet)
    now = perf_counter()
    answer.begin(seq, start, now, isolate=bool(flags & ISOLATE), logs=True)
    for done in range(0, count, grain or 1):
        answer.failure(failed, min(grain or 1, count - done))
    answer.finish(now)
