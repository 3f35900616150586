"""The fork server: a small single-threaded process that forks itself, once for each child asked for.

It forks in a fraction of the time that the user's own process would need, and safely, since it has no threads. It
never unpickles anything: what it reads is fixed headers, fds, and names of modules to import in advance.

S1  Every request is one header of HEADER.size bytes with at least one fd, so one recvmsg() never sees two.
S2  A child's status pipe gets its pid at the fork and its wait status at its end, while it is still a zombie: so a
    parent that has not seen the status knows that the pid is not recycled. (Where os.waitid exists.)
S3  A child keeps no fd of the server but its own and the parent's lifeline.
S4  When the parent has ended, bound children are killed; others live on. When the server itself ends, the lifeline
    that only it can write does the same.
"""

from __future__ import annotations

import _socket
import errno
import gc
import marshal
import os
import select
import sys

from procflow.start import child, lifeline
from procflow.start.protocol import BOUND, HEADER, LAUNCH, MAX_FDS, NUMBER, STDERR, STDOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Iterable
    from typing import Any, NoReturn
else:
    import _signal  # signal itself imports enum: 3 ms in each spawned child

_CLOEXEC = getattr(_socket, "MSG_CMSG_CLOEXEC", 0)
_ANCILLARY = _socket.CMSG_SPACE(MAX_FDS * 4)
_RESTORED = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGCHLD)


def serve(boot: dict[str, Any]) -> NoReturn:
    """Run until the parent has ended or has closed the control socket."""
    try:
        _Server(boot).run()
    finally:
        os._exit(0)


class _Server:
    def __init__(self, boot: dict[str, Any]) -> None:
        self._control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, boot["control"])
        self._control.setblocking(False)
        self._parent_pidfd: int = boot["parent_pidfd"]  # -1 where there are none
        self._sentinel: int = boot["lifeline"]  # the parent's lifeline; every child keeps it
        for fd in (boot["control"], self._sentinel, self._parent_pidfd):
            if fd >= 0:
                os.set_inheritable(fd, False)
        self._lifeline_read, self._lifeline_write = os.pipe()  # of the server itself
        self._woken, wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(wake, False)
        self._wake = wake
        self._children: dict[int, tuple[int, bool]] = {}  # pid -> (status fd, bound)
        self._handlers = {signum: _signal.getsignal(signum) for signum in _RESTORED}
        # A Ctrl-C or a SIGTERM to the whole group is for the parent to act upon: we go when it goes. SIGCHLD needs a
        # handler to wake us.
        for signum in _RESTORED:
            _signal.signal(signum, lambda signum, frame: None)
        _signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, boot["sigmask"])
        child.null_stdin()

    def run(self) -> None:
        gc.freeze()  # a collection in a child would copy every page that the objects of the server lie on
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        if self._parent_pidfd >= 0:
            poll.register(self._parent_pidfd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._woken in ready:
                self._reap()
            if self._parent_pidfd in ready:
                break
            if self._control.fileno() in ready and not self._answer():
                break
        self._kill_bound()
        self._control.close()  # else Python, run with -W default or -X dev, tells the user's terminal of it

    def _answer(self) -> bool:
        """Serve the requests that are there. False when the parent has closed its end."""
        while True:
            try:
                data, ancillary, _, _ = self._control.recvmsg(HEADER.size, _ANCILLARY, _CLOEXEC)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            fds: list[int] = []
            for level, kind, packed in ancillary:
                if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                    fds += memoryview(packed)[: len(packed) // 4 * 4].cast("i").tolist()
            self._serve_one(data, fds)

    def _serve_one(self, data: bytes, fds: list[int]) -> None:
        kind, options, count, nbytes = HEADER.unpack(data)
        try:
            if kind != LAUNCH:
                _preload(fds[0], nbytes)
            elif len(fds) == count:
                self._fork(options, nbytes, fds)
            elif fds:  # the kernel gave fewer: no free number here. The status pipe comes first, so it can say so.
                _write(fds[0], -errno.EMFILE)
        except OSError as error:
            if kind == LAUNCH:
                _write(fds[0], -(error.errno or errno.EAGAIN))
        finally:
            for fd in fds:  # in the server only: a forked child never comes back here
                os.close(fd)

    def _fork(self, options: int, nbytes: int, fds: list[int]) -> None:
        # A signal for the child may come before it has its handlers again: our no-op would swallow a terminate().
        mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, _RESTORED)
        try:
            pid = os.fork()
            if pid == 0:
                child.end_with(lambda: self._become_child(options, nbytes, fds, mask))
        finally:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
        status = fds.pop(0)
        self._children[pid] = status, bool(options & BOUND)
        _write(status, pid)

    def _become_child(self, options: int, nbytes: int, fds: list[int], mask: Iterable[int]) -> int:
        _signal.set_wakeup_fd(-1)
        for signum, handler in self._handlers.items():
            _signal.signal(signum, handler)
        self._control.close()
        for fd in (self._woken, self._wake, self._lifeline_write, self._parent_pidfd, fds[0]):
            if fd >= 0:
                os.close(fd)
        for fd, _ in self._children.values():
            os.close(fd)
        if options & BOUND:
            lifeline.arm(self._lifeline_read)
        else:
            os.close(self._lifeline_read)
        passed = fds[2:]
        for flag, standard in ((STDOUT, 1), (STDERR, 2)):
            if options & flag:
                fd = passed.pop(0)
                os.dup2(fd, standard)
                os.close(fd)
        return child.forked_by_server(fds[1], nbytes, passed, self._sentinel, mask)

    def _reap(self) -> None:
        try:
            while os.read(self._woken, 4096):
                pass
        except BlockingIOError:
            pass
        while (ended := _next_ended()) is not None:
            pid, status = ended
            held = self._children.pop(pid, None)
            if held is not None:
                _write(held[0], status)
                os.close(held[0])
            if _HAS_WAITID:
                os.waitpid(pid, 0)  # only now may the kernel give the number to another process (S2)

    def _kill_bound(self) -> None:
        for pid, (_, bound) in self._children.items():
            if bound:
                os.kill(pid, _signal.SIGKILL)


_HAS_WAITID = hasattr(os, "waitid")


def _next_ended() -> tuple[int, int] | None:
    """(pid, exit code as in Process.exitcode) of a child that has ended."""
    try:
        if not _HAS_WAITID:
            pid, status = os.waitpid(-1, os.WNOHANG)
            return (pid, os.waitstatus_to_exitcode(status)) if pid else None
        info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    if info is None:
        return None
    return info.si_pid, info.si_status if info.si_code == os.CLD_EXITED else -info.si_status


def _write(fd: int, number: int) -> None:
    try:
        os.write(fd, NUMBER.pack(number))
    except OSError:
        pass  # the parent has closed the Child, or has ended


def _preload(fd: int, nbytes: int) -> None:
    sys_path, modules = marshal.loads(os.pread(fd, nbytes, 0))
    sys.path[:] = sys_path
    for name in modules:
        try:
            __import__(name)
        except Exception:  # noqa: BLE001 - the child that really needs it gets the error, with its own traceback
            pass
    gc.collect()
    gc.freeze()
