"""The life of a worker: its initializer, then packets until the pool closes the task pipe."""

from __future__ import annotations

import faulthandler
import marshal
import os
import select
import signal
from time import perf_counter

from procflow.cpu import set_sharers
from procflow.start import main_module
from procflow.wire.channel import packet_reader, stream_reader
from procflow.wire.packets import BOOTED, INIT_FAILED, READY, RECORD
from procflow.worker.answer import write_aside, write_frame
from procflow.worker.records import send_all
from procflow.worker.run import open_runner
from procflow.worker.status import MEMORY, PAGE_SIZE, STACK_SIGNAL, open_page
from procflow.worker.task import tell_in_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from typing import TypedDict

    from procflow.worker.memory import Meter

    Manager = AbstractContextManager[object, bool | None]
    # The initializer, its arguments, and the worker's context.
    Custom = tuple[Callable[..., object] | None, Sequence[object], Callable[[], Manager] | None]

    class Facts(TypedDict):
        """What a worker is told of itself: plain values."""

        stream: bool  # its task pipe is a plain one
        eager: bool  # a core is there for each worker
        slot: int
        seed: int  # the pool's
        threads: int  # that native libraries may use; 0: no limit
        cpus: list[int]  # to which it is bound; none: to no others than the pool's process
        name: str  # of its process
        levels: dict[str, int] | None  # of the loggers in the pool's process
        sharers: int  # how many processes share them, see cpu.py


__all__ = ["FDS", "prepare", "run", "serve"]

FDS = 5  # task pipe, result pipe, status page, files for big tasks and results; more are the initializer's arguments'
sched_yield = getattr(os, "sched_yield", lambda: None)

SPIN = 100e-6  # seconds: how long a thread that submits and waits takes between an answer and the next task


def run(payload: bytes | memoryview, fds: list[int]) -> int:
    """Entry of a spawned or forkserver worker. The payload: its facts, marshalled, and what is custom, pickled."""
    facts: Facts
    facts, nbytes = marshal.loads(payload)  # which ignores what follows
    custom = memoryview(payload)[len(payload) - nbytes :]

    def load() -> Custom:
        if not custom:
            return None, (), None
        write_frame(fds[1], BOOTED)  # the pool may launch another one: an initializer can take long
        from procflow.start.passing import loads_in_child

        loaded: Custom
        loaded, noted = loads_in_child(custom, fds[FDS:])
        if noted:
            from procflow.start.places import receive_notes

            receive_notes(noted)
        return loaded

    return serve(fds[:FDS], load, facts)


def prepare() -> None:
    """Called before signals can come.

    Ctrl-C goes to the whole group. The pool's process raises KeyboardInterrupt and ends us; a handler rather than
    SIG_IGN, since what a task starts would inherit that.
    """
    signal.signal(signal.SIGINT, _leave_to_the_parent)


def serve(fds: Sequence[int], load: Callable[[], Custom], facts: Facts) -> int:
    """Load the initializer and call it, enter the context, then run packets; return the exit code."""
    _, results, status, _, _ = fds
    _tell_stack_into(status)
    send_all(lambda record: write_aside(results, RECORD, record), facts["name"], facts["slot"], facts["levels"])
    context: Manager | None = None
    failed = "It could not be bound to its processors, or its threads could not be limited"
    try:
        _settle(facts)
        failed = "Its initializer, initargs or worker_context can't be rebuilt in a worker"
        initializer, initargs, make_context = load()
        failed = "Its initializer raised"
        if initializer is not None:
            initializer(*initargs)
        failed = "Its worker_context raised"
        if make_context is not None:
            context = make_context()
            context.__enter__()
    except BaseException as error:  # noqa: BLE001 - an initializer may raise anything, SystemExit too
        import traceback

        main_module.explain(error)
        text = f"{failed}:\n" + "".join(traceback.format_exception(type(error), error, error.__traceback__))
        write_frame(results, INIT_FAILED, text.encode("utf-8", "backslashreplace"))
        return 1
    try:
        return _run_packets(fds, facts)
    finally:
        if context is not None:
            context.__exit__(None, None, None)


def _settle(facts: Facts) -> None:
    """Before anything else is imported: some libraries look at their processors when they are."""
    set_sharers(facts["sharers"])
    if facts["cpus"]:
        os.sched_setaffinity(0, facts["cpus"])
    if facts["threads"]:
        from procflow.worker.threads import limit

        limit(facts["threads"])


def _run_packets(fds: Sequence[int], facts: Facts) -> int:
    tasks, results, status, big_tasks, big_results = fds
    stream, eager = facts["stream"], facts["eager"]
    page, log = open_page(status)
    runner = open_runner(
        results, page, log, big_tasks, big_results, portable=stream, slot=facts["slot"], seed=facts["seed"]
    )
    followed = _watcher(tasks)
    runner.look_behind_by(followed)
    tell_in_process(runner.place)
    read_packet = stream_reader(tasks) if stream else packet_reader(tasks)
    meter = _meter(page[MEMORY], portable=stream)
    try:
        write_frame(results, READY)
        while packet := read_packet():
            runner.run(packet)
            if runner.exit_code is not None:
                return runner.exit_code
            if meter is not None and meter.is_exceeded():
                return 0  # what it has not read runs elsewhere
            if eager and runner.was_quick:
                _spin(followed)
    except OSError:  # the pool is gone, or has given this worker up; or a task has closed the pipes
        return 1
    return 0


def _meter(limit: int, *, portable: bool) -> Meter | None:
    if not limit:
        return None
    from procflow.worker.memory import Meter

    return Meter(limit, portable=portable)


def _watcher(tasks: int) -> Callable[[], object]:
    """Return a function that tells whether there is a packet to be read."""
    if not hasattr(select, "poll"):
        return lambda: True
    poller = select.poll()
    poller.register(tasks, select.POLLIN)
    return lambda: poller.poll(0)


def _spin(followed: Callable[[], object]) -> None:
    """Wait a moment for the next packet without sleeping: being woken takes 40 to 50 us."""
    until = perf_counter() + SPIN
    while not followed() and perf_counter() < until:
        sched_yield()  # whoever else wants this core gets it


def _tell_stack_into(status: int) -> None:
    """From now on have the stacks written behind the status page when the pool asks: also from within a C function."""
    if STACK_SIGNAL is not None:
        os.lseek(status, PAGE_SIZE, os.SEEK_SET)
        faulthandler.register(STACK_SIGNAL, file=status, all_threads=True)


def _leave_to_the_parent(_signum: int, _frame: object) -> None:
    pass
