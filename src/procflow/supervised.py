"""The members of a Supervisor: a process, or another supervisor, each with the same few verbs.

    absent -> launched -> ended -> absent       `launch()`; it ends by itself or is told to; `reap()`

Used by the supervisor's own thread only.
"""

from __future__ import annotations

from dataclasses import dataclass

from procflow.connection import Connection, Pipe, connections_in
from procflow.errors import describe_exit
from procflow.scheduling.lifecycle import ChildSpec, Exited, GaveUp, Ready, Started
from procflow.start.family import Family
from procflow.worker.supervised import BEAT, READY, run_supervised

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from typing import Any, Protocol

    from procflow.context import Context
    from procflow.process import Process
    from procflow.scheduling.lifecycle import Event

    class Inner(Protocol):
        """What is needed of a supervisor within another one."""

        def begin(self, listener: Callable[[], None] | None) -> None: ...
        def ask_to_stop(self, grace: float | None) -> None: ...
        def outcome(self) -> tuple[bool, int | None, str]: ...
        def wait_ended(self) -> None: ...

    class Member(Protocol):
        """What a supervisor needs of a child."""

        spec: ChildSpec

        def launch(self) -> int | None:
            """Start it; give its pid, if it has one."""
            ...

        def watched(self) -> list[Any]:
            """What to wait for: the end, and messages."""
            ...

        def heard(self, ready: Collection[object]) -> tuple[bool, bool]:
            """Whether it has said that it is ready, and that it is alive, in what is `ready` to be read."""
            ...

        def terminate(self, grace: float | None) -> None:
            """Ask it to end."""
            ...

        def kill(self) -> None:
            """End it."""
            ...

        def reap(self, ready: Collection[object]) -> tuple[int, str] | None:
            """Its exit code, and words about it, if it has ended; it may be launched again then."""
            ...


__all__ = ["ChildInfo", "ProcessMember", "SupervisorMember", "in_words"]


@dataclass(frozen=True)
class ChildInfo:
    """A child of a supervisor, as it was at one moment.

    Attributes:
        name: Unique in its supervisor.
        pid: None if it does not run, or is a supervisor.
        state: "idle": not running, to be started; "starting": not ready yet; "ready"; "stopping"; "done": for good.
        restarts: How often it was started again.
    """

    name: str
    pid: int | None
    state: str
    restarts: int


class ProcessMember:
    """A child that is a process."""

    def __init__(
        self,
        spec: ChildSpec,
        context: Context,
        target: Callable[..., object],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        self.spec = spec
        self._context, self._target, self._args, self._kwargs = context, target, args, kwargs
        if spec.restart != "temporary":
            # The next one of its kind gets them again: so the end of the first is not the end of its Connections.
            for connection in connections_in((target, args, kwargs)):
                connection.endpoint.own.used = True
        self._process: Process | None = None
        self._channel: Connection[Any, Any] | None = None
        self._family: Family | None = None

    def launch(self) -> int | None:
        """Start it; give its pid, if it has one."""
        ours = theirs = None
        if self.spec.ready_within is not None or self.spec.heartbeat is not None:
            ours, theirs = Pipe(duplex=False)
        try:
            process: Process = self._context.Process(
                target=run_supervised, name=self.spec.name, args=(self._target, self._args, self._kwargs, theirs)
            )
            process.daemon = False  # it may have children, whatever this process is
            process.bind()  # and yet it ends with this process, however that ends
            process.start()
        except BaseException:
            if ours is not None:
                ours.close()
            raise
        finally:
            if theirs is not None:
                theirs.close()
        self._process, self._channel = process, ours
        return process.pid

    def watched(self) -> list[Any]:
        """What to wait for: the end, and messages."""
        watched: list[Any] = [] if self._process is None else [self._process.sentinel]
        return watched if self._channel is None else [*watched, self._channel]

    def heard(self, ready: Collection[object]) -> tuple[bool, bool]:
        """Whether it has said that it is ready, and alive."""
        said: set[bytes] = set()
        channel = self._channel
        if channel is not None and channel in ready:
            try:
                while channel.poll():
                    said.add(channel.recv_bytes())
            except (EOFError, OSError):  # it has closed its end, or died in the middle of a word
                channel.close()
                self._channel = None
        return READY in said, BEAT in said

    def terminate(self, grace: float | None) -> None:
        """Ask it to end."""
        if self._process is not None:
            self._look()
            self._process.terminate()

    def kill(self) -> None:
        """End it."""
        if self._process is not None:
            self._look()
            self._process.kill()

    def _look(self) -> None:
        """See what processes it has below it, while it can still be told."""
        assert self._process is not None
        if self._family is None:
            self._family = Family(self._process.pid or 0)
        else:
            self._family.look()

    def reap(self, ready: Collection[object]) -> tuple[int, str] | None:
        """Its exit code, and words about it, if it has ended."""
        process = self._process
        if process is None or process.sentinel not in ready:
            return None
        process.join()
        code = process.exitcode
        if code is None:
            return None
        if self._family is not None:
            self._family.kill()
            self._family = None
        if self._channel is not None:
            self._channel.close()
        process.close()
        self._process = self._channel = None
        return code, ""


class SupervisorMember:
    """A child that is a supervisor in this process, with a thread of its own. It wakes the one above by `listener`."""

    def __init__(self, spec: ChildSpec, inner: Inner, listener: Callable[[], None]) -> None:
        self.spec = spec
        self._inner, self._listener = inner, listener
        self._runs = self._was_ready = False

    def launch(self) -> int | None:
        """Start it; give its pid, if it has one."""
        self._inner.begin(self._listener)
        self._runs, self._was_ready = True, False
        return None

    def watched(self) -> list[Any]:
        """What to wait for: the end, and messages."""
        return []

    def heard(self, ready: Collection[object]) -> tuple[bool, bool]:
        """Whether it has said that it is ready, and alive."""
        if self._runs and not self._was_ready:
            self._was_ready, _, _ = self._inner.outcome()
            return self._was_ready, False
        return False, False

    def terminate(self, grace: float | None) -> None:
        """Ask it to end."""
        self._inner.ask_to_stop(None)  # when the grace is over, kill() comes

    def kill(self) -> None:
        """End it."""
        self._inner.ask_to_stop(0)

    def reap(self, ready: Collection[object]) -> tuple[int, str] | None:
        """Its exit code, and words about it, if it has ended."""
        if not self._runs:
            return None
        _, code, words = self._inner.outcome()
        if code is None:
            return None
        self._inner.wait_ended()
        self._runs = False
        return code, words


def in_words(event: Event) -> str:
    """Say an event in a sentence for the log."""
    match event:
        case Ready(name, after):
            return f"{name}: ready after {after:.3g} s"
        case GaveUp(name, why, most, within, detail):
            return f"{name}: {why} once more after {most} restarts within {within:g} s; stopping all. {detail}".rstrip()
        case Exited(name, pid, exitcode, why, restart_in, detail):
            ended = "" if exitcode is None else f": {describe_exit(exitcode)}"
            again = "" if restart_in is None else f"; restart in {restart_in:.3g} s"
            return f"{name}: {why}{ended} (pid {pid}){again}{'; ' if detail else ''}{detail}"
        case _:
            verb = "started" if isinstance(event, Started) else f"restarted, time {event.restarts}"
            return f"{event.name}: {verb} (pid {event.pid})"
