"""What supervision is told of a child, and what it tells the world: plain frozen values, no decisions.

The events are public: `Supervisor.subscribe` hands them to callbacks. The commands are for `procflow.supervisor` alone.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = [
    "Backoff",
    "ChildSpec",
    "Command",
    "Event",
    "Exited",
    "GaveUp",
    "Kill",
    "Launch",
    "Ready",
    "Restart",
    "Restarted",
    "Started",
    "Strategy",
    "Terminate",
    "Why",
]

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]
Restart = Literal["permanent", "transient", "temporary"]
Why = Literal["finished", "crashed", "stopped", "not ready", "silent", "not started"]


@dataclass(frozen=True)
class Backoff:
    """How long a child waits before it is restarted: `first * factor**n` seconds after n restarts in a row.

    Args:
        first: The first delay in seconds.
        factor: What each further delay is multiplied by.
        most: No delay is longer, but for the jitter.
        jitter: The share of the delay by which it may be longer or shorter, so that children that fell together do not
            come back together. The same seed, child and number give the same delay.
    """

    first: float = 0.1
    factor: float = 2.0
    most: float = 30.0
    jitter: float = 0.1

    def __post_init__(self) -> None:
        if not (0 <= self.first <= self.most and self.factor >= 1 and 0 <= self.jitter <= 1):
            raise ValueError(f"{self!r}: needs 0 <= first <= most, factor >= 1 and 0 <= jitter <= 1")

    def delay(self, restarts: int, key: str) -> float:
        """Return the delay after so many restarts in a row; `key` decides where in the jitter it lies."""
        plain = self.first
        for _ in range(restarts):  # not a power: that overflows
            if plain >= self.most or self.factor == 1:
                break
            plain *= self.factor
        share = zlib.crc32(f"{key}:{restarts}".encode()) / 2**31 - 1  # in [-1, 1)
        return min(plain, self.most) * (1 + self.jitter * share)


@dataclass(frozen=True)
class ChildSpec:
    """What a supervisor knows of a child in advance. Times are in seconds."""

    name: str
    restart: Restart = "permanent"
    shutdown: float | None = 5.0  # between terminate and kill; None: as long as it takes
    ready_within: float | None = None  # None: it is ready as soon as it runs
    heartbeat: float | None = None  # the longest silence; None: it need not say anything
    backoff: Backoff = Backoff()


# ---- events


@dataclass(frozen=True)
class Started:
    """A child was started for the first time."""

    name: str
    pid: int | None


@dataclass(frozen=True)
class Restarted:
    """A child was started again, for the `restarts`-th time."""

    name: str
    pid: int | None
    restarts: int


@dataclass(frozen=True)
class Ready:
    """A child that was to say when it is ready has said so, `after` seconds from its start."""

    name: str
    after: float


@dataclass(frozen=True)
class Exited:
    """A child has ended.

    Attributes:
        name: The child's name.
        pid: The process id that it had; None if it was a supervisor, or was not started.
        exitcode: As in `Process.exitcode`.
        why: "finished" (exit code 0) or "crashed" by itself; "stopped" in its turn; told to end because it was "not
            ready" in time or "silent" for too long; "not started" at all.
        restart_in: The seconds until it is started again; None if this end was not one to restart it for.
        detail: What could be learnt of a start that failed.
    """

    name: str
    pid: int | None
    exitcode: int | None
    why: Why
    restart_in: float | None = None
    detail: str = ""


@dataclass(frozen=True)
class GaveUp:
    """The supervisor restarts nothing any more and stops all: this child would have been one restart too many."""

    name: str
    why: Why
    max_restarts: int
    within: float
    detail: str = ""


Event = Started | Restarted | Ready | Exited | GaveUp


# ---- commands


class Launch(NamedTuple):
    """Start child number `child`, and report `launched` or `launch_failed`."""

    child: int


class Terminate(NamedTuple):
    """Ask the child to end. If it does not, a Kill follows."""

    child: int
    grace: float | None


class Kill(NamedTuple):
    """End the child, whatever it does."""

    child: int


Command = Launch | Terminate | Kill
