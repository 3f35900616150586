"""A child process as its parent sees it: its pid, its end, its exit code.

    STARTED -> ENDED          `_code` is set exactly once, under `_lock`; never blocks on the process

C1  `sentinel` is readable if and only if the process itself has ended, whatever its own children hold open.
C2  A signal is sent only while the process has provably not been reaped, so never to a stranger who got its number.
C3  The sentinel is closed when no thread looks at it or waits for it: its number may be a stranger's then.
C4  A copy of a Child in a fork knows nothing: poll() is None there, and close() and send_signal() do nothing.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from _thread import RLock

from procflow.dropping import when_dropped
from procflow.start import owned
from procflow.start.protocol import NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from weakref import finalize

UNKNOWN_EXIT = 255  # as in multiprocessing, when the fork server died or a stranger reaped the child


class ForkServerDied(OSError):
    """The fork server ended before it had started this child. The next launch starts another server."""


class Child:
    """A process that procflow has launched. `close()` releases the fds; it does not end the process."""

    method: str

    def __init__(self, method: str) -> None:
        self.method = method
        self._lock = RLock()  # a signal handler may end the process while its thread looks after it
        self._born = owned.generation()
        self._code: int | None = None
        self._sentinel = -1
        self._waiters = 0  # threads that wait for the sentinel
        self._release: finalize[..., object] | None = None  # closes the sentinel

    @property
    def pid(self) -> int:
        """The process id."""
        raise NotImplementedError

    @property
    def sentinel(self) -> int:
        """An fd that is readable once the process has ended: for select, poll, epoll and connection.wait()."""
        return self._sentinel

    @property
    def news(self) -> int:
        """An fd that is readable when `poll()` has something to learn: the end, or only that the process was started.

        Unlike `sentinel` it never waits, so many children can be launched before one of them is looked at.
        """
        return self._sentinel

    def poll(self) -> int | None:
        """The exit code (-N: killed by signal N), None while the process runs. Never blocks."""
        if self._code is None and self._born == owned.generation():
            with self._lock:
                self._learn()
        return self._code

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code, waited for; None if the process still runs after `timeout` seconds."""
        if self._born != owned.generation():
            return None
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            left = None if deadline is None else deadline - time.monotonic()
            if (left is not None and left <= 0) or self.sentinel < 0:
                return self.poll()
            if self._wait_readable(left) and self.poll() is None:
                # Only where the sentinel is a pipe can it be ahead of the exit code, for the moment that the kernel
                # needs from closing fds to the zombie, or longer when the child closed fds that are not its own.
                time.sleep(0.001)
        return code

    def send_signal(self, signum: int) -> None:
        """Send a signal; nothing if the process has ended."""
        raise NotImplementedError

    def close(self) -> None:
        """Release the fds. Idempotent. The exit code is kept, if it was learnt; else it will not be."""
        with self._lock:
            self._sentinel = -1
            self._release_unused()

    def _release_unused(self) -> None:
        """Under the lock."""
        if self._sentinel < 0 and not self._waiters and self._release is not None:
            self._release()

    def _wait_readable(self, timeout: float | None) -> bool:
        """Wait until the sentinel is readable, or closed; False after `timeout` seconds."""
        with self._lock:
            fd = self._sentinel
            if fd < 0:
                return True
            self._waiters += 1
        try:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            return bool(poll.poll(None if timeout is None else max(0, timeout * 1000)))
        finally:
            with self._lock:
                self._waiters -= 1
                self._release_unused()

    def _take(self, sentinel: int) -> None:
        """Own this sentinel."""
        self._sentinel = owned.own(sentinel)
        self._release = when_dropped(self, owned.close, sentinel, self._born)

    def _learn(self) -> None:
        """Set `_code` if the process has ended. Called under the lock."""
        raise NotImplementedError

    def __repr__(self) -> str:
        state = "running" if self._code is None else f"exitcode={self._code}"
        return f"<{type(self).__name__} {self.method} {state}>"


class OwnChild(Child):
    """A child of this very process: by fork, or by spawn."""

    def __init__(self, method: str, pid: int, sentinel: int) -> None:
        super().__init__(method)
        self._pid = pid
        self._take(sentinel)

    @property
    def pid(self) -> int:
        return self._pid

    def _learn(self) -> None:
        if self._code is not None:
            return
        try:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
        except ChildProcessError:
            if self._code is None:  # else a signal handler, which interrupted us, has learnt it
                self._code = UNKNOWN_EXIT  # reaped by os.wait() elsewhere, or the user ignores SIGCHLD
        else:
            if pid:
                self._code = os.waitstatus_to_exitcode(status)

    def send_signal(self, signum: int) -> None:
        if self._born != owned.generation():
            return
        with self._lock:  # nobody reaps it between the look and the signal
            self._learn()
            if self._code is None:
                try:
                    os.kill(self._pid, signum)
                except ProcessLookupError:
                    pass


class ServedChild(Child):
    """A child of the fork server, known by its status pipe.

    The pipe brings the pid first and the exit code at the end. `launch()` waits for neither: `pid` and `sentinel`
    wait, once, for the pid (about a millisecond), and from then on the pipe is readable only at the end. (A second
    pipe for the pid would cost two fds more per child in both processes.)
    """

    def __init__(self, method: str, status: int) -> None:
        super().__init__(method)
        self._take(status)
        os.set_blocking(status, False)
        self._pid = 0
        self._birth = RLock()  # taken before `_lock`
        self._errno = 0
        self._received = b""

    @property
    def pid(self) -> int:
        """The process id. Waits until the child is forked. Raises OSError if it could not be."""
        while not self._pid:
            if self._errno:
                raise OSError(self._errno, f"the fork server could not start a process: {os.strerror(self._errno)}")
            if self._code is not None:
                raise ForkServerDied(errno.ECONNRESET, "the fork server ended before it had started the process")
            if self._sentinel < 0 or self._born != owned.generation():
                raise OSError(errno.EBADF, "this Child was closed, or was copied by a fork, before its pid was known")
            self._wait_birth()
        return self._pid

    def _wait_birth(self) -> None:
        # One thread waits, and nobody else reads meanwhile: it would wait for ever for what is read already.
        with self._birth:
            if not self._pid and self._code is None:
                self._wait_readable(None)
                with self._lock:
                    self._read()

    @property
    def sentinel(self) -> int:
        if not self._pid and self._sentinel >= 0:
            _ = self.pid
        return self._sentinel

    def _learn(self) -> None:
        if self._pid:
            self._read()
        elif self._birth.acquire(blocking=False):  # else another thread waits for the pid, and must find it there
            try:
                self._read()
            finally:
                self._birth.release()

    def _read(self) -> None:
        """Read what has come. Under the lock, and until the pid is known under `_birth`, too."""
        while self._code is None and self._sentinel >= 0:
            try:
                data = os.read(self._sentinel, 2 * NUMBER.size - len(self._received))
            except BlockingIOError:
                return
            if not data:
                self._code = UNKNOWN_EXIT  # the server is gone
            self._received += data
            if not self._pid and len(self._received) >= NUMBER.size:
                (number,) = NUMBER.unpack_from(self._received)
                if number < 0:
                    self._errno, self._code = -number, UNKNOWN_EXIT
                    return
                self._pid = number
            if len(self._received) >= 2 * NUMBER.size:
                (self._code,) = NUMBER.unpack_from(self._received, NUMBER.size)

    def send_signal(self, signum: int) -> None:
        if self._born != owned.generation() or self._code is not None:
            return
        try:
            pid = self.pid
        except OSError:  # it could not be started
            return
        try:
            try:
                # The server reports an end before it reaps: no report after the opening means that it is the process.
                pidfd = os.pidfd_open(pid)
            except (AttributeError, OSError):  # not on this system, or no descriptor is left: it must work all the same
                if self.poll() is None:
                    os.kill(pid, signum)
                return
            try:
                if self.poll() is None:
                    signal.pidfd_send_signal(pidfd, signum)
            finally:
                os.close(pidfd)
        except ProcessLookupError:
            pass
