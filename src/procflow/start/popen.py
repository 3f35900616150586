"""multiprocessing's `Popen` over a `Child`: how a Process object gets its process, for each start method."""

from __future__ import annotations

import os
import signal

from procflow.dropping import when_dropped
from procflow.start import lifeline, owned, passing, process_entry, spool, tracker
from procflow.start.launch import Child, ForkServerDied, fork, launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What the fork server has imported by the time that it forks for a Process: what such a child needs in any case.
_PRELOAD = (
    "procflow.process",
    "procflow.start.process_entry",
    "procflow.worker.result",
    "procflow.wire.pickling",
    "multiprocessing.util",
    "multiprocessing.context",
)


class Popen:
    """The running process of one Process object; the interface is `multiprocessing.popen_fork.Popen`'s."""

    def __init__(self, process: Any, method: str) -> None:
        self.method = method
        # What the target returns. A file and not a pipe: the child writes all of it at once, so that it can end, and
        # join() need not read anything, whatever its size; and nobody has to read what nobody asks for.
        with owned.opening:
            self.result_fd = owned.own(spool.anonymous_file("procflow"))
        self._release = when_dropped(self, owned.close, self.result_fd, owned.generation())
        try:
            self.child = _launch(process, method, self.result_fd)
            self.pid, self.sentinel = self.child.pid, self.child.sentinel
        except BaseException:
            self.close()
            raise

    @property
    def returncode(self) -> int | None:
        """The exit code if it is known already."""
        return self.child.poll()

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """The exit code, or None while the process runs. Does not wait, unless `flag` is 0."""
        return self.child.poll() if flag == os.WNOHANG else self.child.wait()

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code, waited for."""
        return self.child.wait(timeout)

    def interrupt(self) -> None:
        """Send SIGINT."""
        self.child.send_signal(signal.SIGINT)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.child.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.child.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Release the fds."""
        child: Child | None = getattr(self, "child", None)  # absent if it could not be launched
        if child is not None:
            child.close()
        self.forget_result()

    def forget_result(self) -> None:
        """Release the file with the result. Idempotent."""
        self.result_fd = -1
        self._release()


def _launch(process: Any, method: str, result_fd: int) -> Child:
    # A daemonic process is its parent's: it goes when the parent goes, however that ends. Others may outlive it.
    bound: bool = process.daemon or process._bound
    env: dict[str, str] | None = process._env
    if method == "fork":
        sentinel = lifeline.reading_end()
        return fork(
            lambda: process_entry.bootstrap(process, sentinel, result_fd), keep=(result_fd,), bound=bound, env=env
        )
    tracker.ensure_running()  # what this child makes is to be tracked once, and by the family's
    data, fds = passing.dumps_for_child(process, _given(process), f"the process {process.name!r}", method)
    preload = (*_PRELOAD, *process._preload)
    for attempt in (1, 2):
        child = launch(
            method,
            process_entry.ENTRY,
            data,
            [*fds, result_fd],
            name=process.name,
            bound=bound,
            preload=preload,
            env=env,
        )
        try:
            _ = child.pid
        except ForkServerDied:
            # It was killed with our request in its hands, so nothing was started. Once may be chance.
            child.close()
            if attempt == 2:
                raise
        except BaseException:
            child.close()
            raise
        else:
            return child
    raise AssertionError("unreachable")


def _given(process: Any) -> dict[str, object]:
    """What the user gave to the process, by the words that name it in an error."""
    state: dict[str, Any] = process.__dict__
    state = state.copy()
    target: object = state.pop("_target")
    args: tuple[object, ...] = state.pop("_args")
    kwargs: dict[str, object] = state.pop("_kwargs")
    return {
        "the target": target,
        **{f"args[{place}]": value for place, value in enumerate(args)},
        **{f"kwargs[{name!r}]": value for name, value in kwargs.items()},
        **{f"the attribute {name!r}": value for name, value in state.items()},
    }
