"""The first thing that runs in a child: it becomes what the parent described, runs the entry, and ends.

Spawned children and forks of the fork server come here with a *record* (a dict of plain values, see record.py); a
fork of the parent itself has everything already and only ends here. Import-light: see the package.
"""

from __future__ import annotations

import atexit
import marshal
import os
import sys

from procflow.start import adopt, lifeline, main_module, spool

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Iterable
    from typing import Any, NoReturn

    Record = dict[str, Any]  # marshalled plain values; record.py lists them
else:
    import _signal  # signal itself imports enum: 3 ms in each spawned child

_atexit: Any = atexit  # what ends a process by hand is not documented, but multiprocessing does the same

forked = True  # this process has the memory of the parent itself; False in children of spawn and of the fork server
parent_sentinel = -1  # the parent's lifeline, once this process is a child
parent_pid = 0  # the process that has this one started, once this process is a child; not the fork server
start_method: str | None = None  # procflow's default method, as set_start_method() chose it: here, or in the parent


def spawned(record: Record, fd: int, offset: int) -> NoReturn:
    """A fresh interpreter of the spawn method continues here (see launch.spawn_code)."""

    def entry() -> int:
        null_stdin()
        if record["bound"]:
            lifeline.arm(record["lifeline"])
        become(record, record["lifeline"], record["tracker"])
        payload = spool.read_rest(fd, offset)
        os.close(fd)
        return run_entry(record["entry"], payload, record["fds"], record["sigmask"])

    end_with(entry)


def forked_by_server(fd: int, record_nbytes: int, fds: list[int], sentinel: int, sigmask: Iterable[int]) -> int:
    """A fork of the fork server continues here; the server has cleaned up behind itself."""
    record: Record = marshal.loads(os.pread(fd, record_nbytes, 0))
    tracker = fds.pop() if record["tracker"] >= 0 else -1
    _drop_finalizers_of_the_server()
    become(record, sentinel, tracker)
    payload = spool.read_rest(fd, record_nbytes)
    os.close(fd)
    return run_entry(record["entry"], payload, fds, sigmask)


def become(record: Record, sentinel: int, tracker: int) -> None:
    """Take over the parent's present surroundings and identity."""
    global forked, parent_sentinel, parent_pid, start_method
    forked, parent_sentinel, start_method = False, sentinel, record["start_method"]
    parent_pid = record["parent_pid"]
    if record["env"] is not None:
        changed, removed = record["env"]
        for name in removed:
            os.environ.pop(name, None)
        os.environ.update(changed)
    if record["cwd"] is not None:
        try:
            os.chdir(record["cwd"])
        except OSError:
            pass  # it was removed meanwhile, or is the parent's only; multiprocessing leaves the child elsewhere too
    if record["umask"] is not None:
        os.umask(record["umask"])
    sys.path[:] = record["sys_path"]
    sys.argv = record["sys_argv"]
    main_module.install(record["main"])
    adopt.adopt_when_imported(record, sentinel, tracker)


def adopt_start_method(method: str) -> None:
    """Make `method` procflow's default one in this child."""
    global start_method
    start_method = method
    context = sys.modules.get("procflow.context")
    if context is not None:
        context.default_context.unfix()


def run_entry(entry: str, payload: bytes | memoryview, fds: list[int], sigmask: Iterable[int] | None = None) -> int:
    """Call `package.module:function`, with this signal mask; before it is set, the module's `prepare` if it has one."""
    module, _, name = entry.partition(":")
    __import__(module)
    loaded: Any = sys.modules[module]
    if sigmask is not None:
        getattr(loaded, "prepare", int)()
        # From here on Ctrl-C and SIGTERM mean what they mean to every Python program, or what the module has said.
        _signal.pthread_sigmask(_signal.SIG_SETMASK, sigmask)
    code: int = getattr(loaded, name)(payload, fds)
    return code


def end_with(call: Callable[[], int]) -> NoReturn:
    """Run `call` and end this process with its result as the exit code, whatever it raises."""
    code = 1
    try:
        try:
            code = call()
        except SystemExit as stop:
            code = _exit_code(stop)
        except BaseException as error:  # noqa: BLE001 - nothing is above this but the end of the process
            _show(error)
        finally:
            _finish()
    finally:
        os._exit(code & 0xFF)


def _finish() -> None:
    # What the interpreter would do at its end. It has to be by hand: os._exit() is what keeps a fork from running
    # its parent's half-done cleanups.
    util = sys.modules.get("multiprocessing.util")
    try:
        if util is not None:
            util._exit_function()  # joins children, ends daemonic ones, flushes queues
        _atexit._run_exitfuncs()
    except BaseException as error:  # noqa: BLE001 - a user's atexit function may raise anything
        _show(error)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError, OSError):
            pass  # None under pythonw, closed by the user, or its reader has gone


def _show(error: BaseException) -> None:
    # The hook, not the traceback module: that is an import, and users replace the hook.
    sys.excepthook(type(error), error, error.__traceback__)


def _exit_code(stop: SystemExit) -> int:
    if stop.code is None:
        return 0
    if isinstance(stop.code, int):
        return stop.code
    print(stop.code, file=sys.stderr)
    return 1


def _drop_finalizers_of_the_server() -> None:
    # What preloaded modules have registered with multiprocessing is for the server to finish. Now, and not at
    # BaseProcess._after_fork() time: what unpickling the arguments registers is ours.
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._finalizer_registry.clear()
        util._run_after_forkers()


def null_stdin() -> None:
    """Give this process an empty standard input: two readers of one terminal steal each other's lines."""
    try:
        null = os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return
    if null != 0:
        os.dup2(null, 0)
        os.close(null)


def forget_parent() -> None:
    """In a fork of the parent: drop what it registered for its own end."""
    _atexit._clear()
