"""This process's fork server, seen from this side: started at the first need, and again when it died.

Requests go one way under a lock and nothing waits for an answer: what becomes of a child is read from its own status
pipe. After a fork the child forgets its parent's server (`owned` has closed the socket) and starts one of its own
when it needs to.
"""

from __future__ import annotations

import array
import errno
import marshal
import os
import socket
from _thread import allocate_lock

from procflow.start import interpreter, lifeline, owned, record, spool
from procflow.start.protocol import BOUND, HEADER, LAUNCH, MAX_FDS, PRELOAD, STDERR, STDOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_CODE = (
    "import marshal,os,sys;b=marshal.loads(os.pread({fd},{nbytes},0));os.close({fd});sys.path[:]=b['sys_path'];"
    "from procflow.start.forkserver import serve;serve(b)"
)


class ForkServer:
    """A handle on the server process; `the_server` is the one of this process."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._control: socket.socket | None = None
        self._pid = 0
        self._preloaded: set[str] = set()  # asked of the running server
        self._wanted: tuple[str, ...] = ()  # asked for by set_preload(), of every server
        self.known_env: dict[str, str] | None = None  # what the server's forks have in os.environ

    @property
    def pid(self) -> int | None:
        """The server's process id, None when none is running that we know of."""
        return self._pid or None

    def ensure_running(self) -> None:
        """Start the server unless it runs already (it may still die at any moment)."""
        with owned.opening, self._lock:
            if self._control is None:
                self._start()

    def launch(self, record_fd: int, record_nbytes: int, fds: Sequence[int], *, bound: bool) -> int:
        """Ask for a child. Gives the reading end of its status pipe, to be owned by the caller."""
        read, write = os.pipe()
        try:
            passed, options = [write, record_fd], BOUND if bound else 0
            for standard, flag in ((1, STDOUT), (2, STDERR)):
                # The server has the stdout of its own birth, not what a test runner or a daemon has put there since.
                if _is_open(standard):
                    passed.append(standard)
                    options |= flag
            passed += fds
            if len(passed) > MAX_FDS:
                raise OSError(errno.EMFILE, f"a child of the fork server can be given {MAX_FDS} fds, not {len(passed)}")
            self._request(HEADER.pack(LAUNCH, options, len(passed), record_nbytes), passed)
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        return read

    def set_preload(self, modules: Iterable[str]) -> None:
        """Name modules that the server is to import before it forks the next child."""
        names = tuple(modules)
        if isinstance(modules, str) or any(type(name) is not str for name in names):
            raise TypeError("module_names must be a list of strings")
        # The script itself is run in a child that needs a name of it; the server stays free of its side effects.
        self._wanted = tuple(name for name in names if name != "__main__")

    def preload(self, modules: Sequence[str]) -> None:
        """Have the server import these and those of `set_preload`, so that the children to come find them imported."""
        wanted = (*self._wanted, *modules)
        if self._preloaded.issuperset(wanted):
            return
        new = [name for name in wanted if name not in self._preloaded]
        text = marshal.dumps((record.sys_path(), new))
        fd = spool.spool([text])
        try:
            self._request(HEADER.pack(PRELOAD, 0, 1, len(text)), [fd])
        finally:
            os.close(fd)
        self._preloaded.update(new)

    def stop(self) -> None:
        """End the server, and with it the bound children; wait for its end. A later launch starts another."""
        with self._lock:
            self._forget()

    def _request(self, header: bytes, fds: Sequence[int]) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        with owned.opening, self._lock:  # in this order everywhere
            for attempt in (1, 2):
                if self._control is None:
                    self._start()
                assert self._control is not None
                try:
                    self._control.sendmsg([header], ancillary)
                    return
                except (BrokenPipeError, ConnectionError):
                    # The server has died (killed, or out of memory). Its children are lost to us; begin afresh.
                    self._forget()
                    if attempt == 2:
                        raise

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        boot_fd = parent_pidfd = -1
        try:
            parent_pidfd = os.pidfd_open(os.getpid()) if hasattr(os, "pidfd_open") else -1
            env = dict(os.environ)
            with interpreter.blocked_signals() as mask:
                sentinel = lifeline.reading_end()
                boot = {
                    "control": theirs.fileno(),
                    "lifeline": sentinel,
                    "parent_pidfd": parent_pidfd,
                    "sigmask": mask.before,
                    "sys_path": record.sys_path(),
                }
                text = marshal.dumps(boot)
                boot_fd = spool.spool([text])
                fds = [fd for fd in (theirs.fileno(), sentinel, parent_pidfd, boot_fd) if fd >= 0]
                self._pid = interpreter.spawn_python(_CODE.format(fd=boot_fd, nbytes=len(text)), fds)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            for fd in (boot_fd, parent_pidfd):
                if fd >= 0:
                    os.close(fd)
        owned.own(ours.fileno())
        self._control, self._preloaded, self.known_env = ours, set(), env

    def _forget(self) -> None:
        if self._control is None:
            return
        owned.disown(self._control.fileno())
        self._control.close()
        self._control = None
        pid, self._pid = self._pid, 0
        try:
            os.waitpid(pid, 0)  # it ends at once: the socket was its life
        except ChildProcessError:
            pass  # someone else has reaped it

    def forget_after_fork(self) -> None:
        """In a fork: the server is the parent's. `owned` has closed the fd already; drop the object without closing."""
        if self._control is not None:
            self._control.detach()
        wanted = self._wanted
        self.__init__()  # type: ignore[misc]  # also a new lock: the old one may be held by a thread that isn't here
        self._wanted = wanted


the_server = ForkServer()


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=the_server.forget_after_fork)
