"""The door of `start/`: launch a process by one of the three methods.

Whatever fails leaves nothing behind: no fd, no process. What is wrong with the *start itself* is an OSError, raised
here for fork and spawn; for forkserver it is raised by the first look at `Child.pid` or `Child.sentinel`, since
`launch` does not wait for the server.
"""

from __future__ import annotations

import marshal
import os
import signal
import sys
from multiprocessing import process

from procflow.start import adopt, child, interpreter, lifeline, main_module, owned, private, record, spool
from procflow.start.children import Child, ForkServerDied, OwnChild, ServedChild
from procflow.start.server import the_server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from procflow.start.spool import Buffer

    Payload = Buffer | Sequence[Buffer]

__all__ = ["Child", "ForkServerDied", "launch", "launch_fork"]

_SPAWN_CODE = (
    "import marshal,os,sys;r=marshal.loads(os.pread({fd},{nbytes},0));sys.path[:]=r['sys_path'];"
    "from procflow.start.child import spawned;spawned(r,{fd},{nbytes})"
)


def launch(
    method: str,
    entry: str,
    payload: Payload,
    fds: Sequence[int],
    *,
    name: str,
    bound: bool,
    preload: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> Child:
    """Run `entry` ("package.module:function") in a new process, as `function(payload, fds) -> exit code`.

    Args:
        method: "fork", "spawn" or "forkserver".
        entry: Where to find the function; the child imports it.
        payload: Bytes for the function. They never block this process, however many they are.
        fds: Open in the child, in this order: with the same numbers, but for forkserver. They remain the caller's here.
        name: What `multiprocessing.current_process().name` is in the child.
        bound: The child must not outlive this process, whatever either is doing.
        preload: Modules that the fork server imports first, once, so that its children find them imported.
        env: Variables that the child has in its environment before it imports anything, beside those of this process.
    """
    buffers = _as_list(payload)
    if method == "fork":
        whole = buffers[0] if len(buffers) == 1 else b"".join(buffers)
        data = bytes(whole) if isinstance(whole, bytearray) else whole
        return launch_fork(lambda: child.run_entry(entry, data, list(fds)), keep=fds, name=name, bound=bound, env=env)
    if method == "spawn":
        private.flush_std_streams()  # not under the lock: the program may have put objects of its own there
        with owned.opening:
            return _launch_spawn(entry, buffers, fds, name, bound, env)
    if method == "forkserver":
        return _launch_served(entry, buffers, fds, name, bound, preload, env)
    raise ValueError(f"unknown start method {method!r}")


def _nothing_to_prepare() -> None:
    """Signals are what they are to every program."""


def launch_fork(
    call: Callable[[], int],
    *,
    keep: Sequence[int],
    name: str,
    bound: bool,
    prepare: Callable[[], None] = _nothing_to_prepare,
    env: Mapping[str, str] | None = None,
) -> Child:
    """Fork this process; the child runs `call` and exits with its result. It keeps the owned fds in `keep` only.

    `prepare` is called in the child while SIGINT and SIGTERM are still blocked there. `env`: see `launch`.
    """
    parent = process.current_process()
    parent_name, parent_pid, authkey = parent.name, os.getpid(), bytes(parent.authkey)
    sentinel = lifeline.reading_end()

    def adopted() -> int:
        child.null_stdin()
        adopt.adopt_process(
            process,
            name=name,
            parent_name=parent_name,
            parent_pid=parent_pid,
            authkey=authkey,
            original_dir=None,
            sentinel=sentinel,
        )
        # As in BaseProcess._bootstrap: what multiprocessing registered here is the parent's to finish.
        private.finalizers.clear()
        private.run_after_forkers()
        return call()

    return fork(adopted, keep=keep, bound=bound, prepare=prepare, env=env)


def fork(
    call: Callable[[], int],
    *,
    keep: Sequence[int],
    bound: bool,
    prepare: Callable[[], None] = _nothing_to_prepare,
    env: Mapping[str, str] | None = None,
) -> Child:
    """The bare fork: `call` itself makes multiprocessing's state consistent.

    SIGINT is blocked meanwhile: in the parent, os.fork() runs hooks (logging, random), and swallows what they raise, so
    a Ctrl-C there would be lost; in the child, it would print the traceback of a child that is not yet one.
    """
    sentinel, parent_pid = lifeline.reading_end(), os.getpid()
    private.flush_std_streams()  # else both processes write what is buffered now
    with interpreter.blocked_signals() as mask, owned.opening:
        pipe = None if hasattr(os, "pidfd_open") else os.pipe()
        try:
            with owned.keeping([*keep, sentinel]):
                pid = os.fork()
        except BaseException:
            for fd in pipe or ():
                os.close(fd)
            raise
        if pid == 0:
            child.end_with(lambda: _forked(call, pipe, sentinel, parent_pid, bound, prepare, mask.before, env))
        if pipe is not None:
            os.close(pipe[1])
        return _watch("fork", pid, pipe)


def _forked(
    call: Callable[[], int],
    pipe: tuple[int, int] | None,
    sentinel: int,
    parent_pid: int,
    bound: bool,
    prepare: Callable[[], None],
    sigmask: list[int],
    env: Mapping[str, str] | None,
) -> int:
    child.forget_parent()
    os.environ.update(env or {})
    child.forked, child.parent_sentinel, child.parent_pid = True, sentinel, parent_pid
    main_module.inherit()
    if pipe is not None:
        os.close(pipe[0])
        owned.own(pipe[1])  # its closing is what tells the parent of our end, so our own forks must not hold it
    if bound:
        lifeline.arm(sentinel)
    prepare()
    signal.pthread_sigmask(signal.SIG_SETMASK, sigmask)
    return call()


def _launch_spawn(
    entry: str, buffers: list[Buffer], fds: Sequence[int], name: str, bound: bool, env: Mapping[str, str] | None
) -> Child:
    tracker = _tracker_fd()
    sentinel = lifeline.reading_end()
    pipe = None if hasattr(os, "pidfd_open") else os.pipe()
    spooled = -1
    try:
        with interpreter.blocked_signals() as mask:
            facts = record.describe(entry=entry, name=name, bound=bound, tracker=tracker, known_env=None, env=env)
            facts |= {"lifeline": sentinel, "fds": list(fds), "sigmask": mask.before}
            text = marshal.dumps(facts)
            spooled = spool.spool([text, *buffers])
            passed = [spooled, sentinel, *fds, *([tracker] if tracker >= 0 else []), *(pipe[1:] if pipe else ())]
            pid = interpreter.spawn_python(_SPAWN_CODE.format(fd=spooled, nbytes=len(text)), passed)
    except BaseException:
        if pipe is not None:
            os.close(pipe[0])
        raise
    finally:
        for fd in (spooled, *(pipe[1:] if pipe else ())):
            if fd >= 0:
                os.close(fd)
    return _watch("spawn", pid, pipe)


def _launch_served(
    entry: str,
    buffers: list[Buffer],
    fds: Sequence[int],
    name: str,
    bound: bool,
    preload: Sequence[str],
    env: Mapping[str, str] | None,
) -> Child:
    tracker = _tracker_fd()
    the_server.ensure_running()
    the_server.preload(preload)
    known_env = the_server.known_env
    facts = record.describe(
        entry=entry, name=name, bound=bound, tracker=tracker, known_env={} if known_env is None else known_env, env=env
    )
    text = marshal.dumps(facts)
    spooled = spool.spool([text, *buffers])
    try:
        passed = [*fds, tracker] if tracker >= 0 else list(fds)
        with owned.opening:
            return ServedChild("forkserver", the_server.launch(spooled, len(text), passed, bound=bound))
    finally:
        os.close(spooled)


def _as_list(payload: Payload) -> list[Buffer]:
    whole: Any = payload  # to a type checker a memoryview may itself be a sequence of buffers
    return [whole] if isinstance(whole, bytes | bytearray | memoryview) else list(whole)


def _watch(method: str, pid: int, pipe: tuple[int, int] | None) -> Child:
    """The Child for `pid`. Its sentinel is a pidfd where there are any: a pipe's end also waits for grandchildren."""
    try:
        return OwnChild(method, pid, os.pidfd_open(pid) if pipe is None else pipe[0])
    except OSError:
        # No fd is left to watch it with. It must not run unwatched.
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        raise


def _tracker_fd() -> int:
    """multiprocessing's resource tracker: one for the family, if it runs; else -1."""
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    if tracker is None:
        return -1
    fd: int | None = tracker._resource_tracker._fd
    return -1 if fd is None else fd
