"""What can go wrong in a pool: each scenario is a function of a pool that ends, or raises `Failed` with a verdict.

`passes`: it ends as it should. Other verdicts: `hangs`, `breaks` (what was not the victim is lost, or the pool is of no
more use), `wrong` (another outcome than the right one, or none), `leaks` (something is left), `not offered`.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from _fault_peers import NeverCameError, NotOfferedError, Pool

OTHERS = 6


class Failed(Exception):
    def __init__(self, verdict: str, detail: str) -> None:
        super().__init__(verdict, detail)
        self.verdict, self.detail = verdict, detail


@dataclass(frozen=True)
class Scenario:
    """`act`: what is done to the program from outside, once it is ready: "kill", "ctrl-c" or nothing."""

    name: str
    title: str
    promise: str
    test: str  # of procflow's own suite
    run: Callable[[Callable[..., Pool]], None]
    act: str = ""


SCENARIOS: dict[str, Scenario] = {}


def scenario(title: str, promise: str, test: str, act: str = "") -> Callable[[Any], Any]:
    def note(run: Callable[[Callable[..., Pool]], None]) -> Any:
        SCENARIOS[run.__name__] = Scenario(run.__name__, title, promise, test, run, act)
        return run

    return note


# -- tasks ------------------------------------------------------------------------------------------------------------


def double(n: int) -> int:
    return 2 * n


def double_slowly(n: int) -> int:
    time.sleep(0.05)
    return 2 * n


def hold(_: object) -> None:
    time.sleep(60)


def hold_in_c(_: object) -> None:
    """A C function that keeps the interpreter to itself, and looks for no signal."""
    sum(itertools.repeat(0))


def kill_itself(_: object) -> None:
    time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)


def exit_at_once(_: object) -> None:
    time.sleep(0.05)
    os._exit(3)


def leave(_: object) -> None:
    sys.exit(3)


def interrupt(_: object) -> None:
    raise KeyboardInterrupt


def segfault(_: object) -> None:
    time.sleep(0.05)
    ctypes.string_at(0)


def abort(_: object) -> None:
    time.sleep(0.05)
    os.abort()


def eat_memory(_: object) -> int:
    limit = 1 << 30
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        return len(bytearray(limit * 2))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def close_all_descriptors(_: object) -> None:
    time.sleep(0.05)
    os.closerange(3, 4096)


def fork_and_leave_a_child(_: object) -> int:
    if os.fork() == 0:
        time.sleep(1.5)
        os._exit(0)
    return 1


def return_lock(_: object) -> Any:
    return threading.Lock()


class Falsy(Exception):
    def __bool__(self) -> bool:
        return False


class Picky(Exception):
    """It pickles, and can't be rebuilt: its constructor takes two arguments and passes one on."""

    def __init__(self, one: object, two: object) -> None:
        super().__init__(one)


def raise_falsy(_: object) -> None:
    raise Falsy("false")


def raise_picky(_: object) -> None:
    raise Picky(1, 2)


def raise_lock(_: object) -> None:
    raise ValueError(threading.Lock())


def return_exception(_: object) -> Any:
    return ValueError("returned, not raised")


def return_nul(_: object) -> str:
    return "\0"


class ExitsInUnpickling:
    def __reduce__(self) -> Any:
        return sys.exit, (5,)


class RaisesInUnpickling:
    def __reduce__(self) -> Any:
        return int, ("no number",)


def return_what_does_not_unpickle(_: object) -> Any:
    return RaisesInUnpickling()


def fail_to_start() -> None:
    raise RuntimeError("this worker has no licence")


def die_at_start() -> None:
    os._exit(9)


def pool_in_a_task(make: Any) -> list[int]:
    from _fault_peers import POOLS

    peer, wrapper, _ = POOLS[make]
    pool = wrapper(peer(2))
    found = [pool.result(handle) for handle in [pool.submit(double, n) for n in range(4)]]
    pool.close()
    return found


# -- how it is judged -------------------------------------------------------------------------------------------------


def told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:90]


def must_be_usable(pool: Pool) -> None:
    """The pool does what it is asked for, afterwards."""
    try:
        found = [pool.result(handle) for handle in [pool.submit(double, n) for n in range(OTHERS)]]
    except NeverCameError:
        raise Failed("hangs", "what is submitted afterwards never comes") from None
    except BaseException as error:
        raise Failed("breaks", f"refuses all that comes afterwards: {told(error)}") from error
    if found != [2 * n for n in range(OTHERS)]:
        raise Failed("wrong", f"gives {found} afterwards")


def must_end(pool: Pool) -> None:
    """Closing it comes to an end."""
    ended = threading.Event()

    def close() -> None:
        try:
            pool.close()
        finally:
            ended.set()

    threading.Thread(target=close, daemon=True).start()
    if not ended.wait(10.0):
        raise Failed("hangs", "closing the pool never ends")


def only_it_fails(
    pool: Pool,
    fn: Callable[..., Any],
    item: Any = None,
    submit: Callable[..., Any] | None = None,
    or_gives: Sequence[Any] = (),
) -> BaseException | None:
    """Run `fn` amid others: it fails, with an exception; the others and what comes afterwards do not.

    `or_gives`: what it may give instead.
    """
    others, victim, error = _submit_amid_others(pool, submit or pool.submit, fn, item)
    lost = _collect(pool, others)
    if victim is not None:
        try:
            value = pool.result(victim)
        except NeverCameError:
            raise Failed("hangs", "the task's result never comes") from None
        except BaseException as raised:  # noqa: BLE001 - the library's, of whatever kind
            error = raised
        else:
            if value not in or_gives:
                raise Failed("wrong", f"the task gives {value!r} instead of an error")
    if lost:
        raise Failed("breaks", f"{len(lost)} of {OTHERS} other tasks fail, too: {told(lost[0])}")
    must_be_usable(pool)
    must_end(pool)
    return error


def _submit_amid_others(
    pool: Pool, submit: Callable[..., Any], fn: Callable[..., Any], item: Any
) -> tuple[list[Any], Any, BaseException | None]:
    """Return the handles of the others, and the victim's, or the exception with which its very call is refused."""
    others = [pool.submit(double_slowly, n) for n in range(OTHERS // 2)]
    victim, error = None, None
    try:
        victim = submit(fn, item)
    except (NeverCameError, NotOfferedError):
        raise
    except BaseException as refusal:  # noqa: BLE001 - that is clear enough, if the others are not harmed
        error = refusal
    try:
        others += [pool.submit(double_slowly, n) for n in range(OTHERS // 2, OTHERS)]
    except BaseException as refusal:
        raise Failed("breaks", f"refuses what comes next: {told(refusal)}") from refusal
    return others, victim, error


def _collect(pool: Pool, others: list[Any]) -> list[BaseException]:
    """Return what those raised that are to give twice their number."""
    lost: list[BaseException] = []
    for n, handle in enumerate(others):
        try:
            found = pool.result(handle)
        except NeverCameError:
            raise Failed("hangs", "results of other tasks never come") from None
        except BaseException as refusal:  # noqa: BLE001
            lost.append(refusal)
        else:
            if found != 2 * n:
                raise Failed("wrong", f"another task gives {found!r}")
    return lost


def it_returns(pool: Pool, fn: Callable[..., Any], item: Any, right: Callable[[Any], bool]) -> None:
    """`fn` returns what it should, and nothing else is harmed."""
    handle = pool.submit(fn, item)
    try:
        value = pool.result(handle)
    except NeverCameError:
        raise Failed("hangs", "the task's result never comes") from None
    except BaseException as error:
        raise Failed("wrong", f"the task fails: {told(error)}") from error
    if not right(value):
        raise Failed("wrong", f"the task gives {value!r}")
    must_be_usable(pool)
    must_end(pool)


# -- the worker dies --------------------------------------------------------------------------------------------------


@scenario(
    "A worker is killed while it runs a task (SIGKILL, as by the out-of-memory killer)",
    "that task fails, no other",
    "test_workers.py",
)
def killed_while_running(open_pool: Callable[..., Pool]) -> None:
    only_it_fails(open_pool(), kill_itself)


@scenario("All workers are killed while idle", "they are replaced; no task fails", "test_workers.py")
def killed_while_idle(open_pool: Callable[..., Pool]) -> None:
    pool = open_pool()
    must_be_usable(pool)
    for pid in pool.pids():
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.3)
    must_be_usable(pool)
    must_end(pool)


@scenario("A task calls `os._exit`", "that task fails, no other", "test_workers.py")
def exits_at_once(open_pool: Callable[..., Pool]) -> None:
    only_it_fails(open_pool(), exit_at_once)


@scenario("A task calls `sys.exit`", "that task fails, no other", "test_workers.py")
def exits(open_pool: Callable[..., Pool]) -> None:
    only_it_fails(open_pool(), leave)


@scenario("A task raises `KeyboardInterrupt`", "that task fails, no other", "test_workers.py")
def raises_keyboard_interrupt(open_pool: Callable[..., Pool]) -> None:
    only_it_fails(open_pool(), interrupt)


@scenario("A task crashes (segmentation fault)", "that task fails, no other", "test_workers.py")
def crashes(open_pool: Callable[..., Pool]) -> None:
    only_it_fails(open_pool(), segfault)


@scenario("A task aborts", "that task fails, no other", "test_workers.py")
def aborts(open_pool: Callable[..., Pool]) -> None:
    only_it_fails(open_pool(), abort)


@scenario("A task meets its memory limit", "`MemoryError`, no other task fails", "test_workers.py")
def meets_its_memory_limit(open_pool: Callable[..., Pool]) -> None:
    error = only_it_fails(open_pool(), eat_memory)
    if not isinstance(error, MemoryError):
        raise Failed("wrong", f"fails with {error!r}")


@scenario("A task closes all descriptors", "at most that task fails", "test_workers.py")
def closes_all_descriptors(open_pool: Callable[..., Pool]) -> None:
    only_it_fails(open_pool(), close_all_descriptors, or_gives=[None])


@scenario("A task forks, and its child outlives it", "one answer; the pool ends", "test_workers.py")
def forks(open_pool: Callable[..., Pool]) -> None:
    it_returns(open_pool(), fork_and_leave_a_child, None, lambda value: value == 1)


@scenario(
    "A worker dies every 20 ms while 500 tasks run",
    "each task ends once; no more fail than were killed",
    "test_workers.py",
)
def storm(open_pool: Callable[..., Pool]) -> None:
    pool = open_pool()
    must_be_usable(pool)
    over = threading.Event()
    killed: list[int] = []

    def kill() -> None:
        while not over.wait(0.02):
            for pid in pool.pids()[:1]:
                try:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                except ProcessLookupError:
                    pass

    handles = [pool.submit(double_slowly if n % 50 == 0 else double, n) for n in range(250)]
    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    failed = 0
    try:
        handles += [pool.submit(double_slowly if n % 50 == 0 else double, n) for n in range(250, 500)]
        for n, handle in enumerate(handles):
            try:
                if pool.result(handle) != 2 * n:
                    raise Failed("wrong", "a task gives another's result")
            except (NeverCameError, Failed):
                raise
            except BaseException:  # noqa: BLE001
                failed += 1
    except NeverCameError:
        raise Failed("hangs", f"results never come, after {len(set(killed))} deaths") from None
    except Failed:
        raise
    except BaseException as error:
        raise Failed("breaks", f"refuses what comes next: {told(error)}") from error
    finally:
        over.set()
        thread.join()
    if failed > len(set(killed)):
        raise Failed("breaks", f"{failed} tasks fail of {len(set(killed))} deaths")
    must_be_usable(pool)
    must_end(pool)


# -- the initializer --------------------------------------------------------------------------------------------------


def says_so(open_pool: Callable[..., Pool], initializer: Callable[[], None]) -> None:
    try:
        pool = open_pool(initializer)
        error: BaseException | None = None
        value = pool.result(pool.submit(double, 1))
    except NeverCameError:
        raise Failed("hangs", "the result never comes") from None
    except Exception as refusal:  # noqa: BLE001
        error = refusal
    else:
        raise Failed("wrong", f"the task gives {value!r}")
    must_end(pool)
    assert error is not None


@scenario("The initializer raises", "an error that says so", "test_workers.py")
def initializer_raises(open_pool: Callable[..., Pool]) -> None:
    says_so(open_pool, fail_to_start)


@scenario("The initializer ends its worker", "an error that says so", "test_workers.py")
def initializer_dies(open_pool: Callable[..., Pool]) -> None:
    says_so(open_pool, die_at_start)


# -- what crosses -----------------------------------------------------------------------------------------------------


@scenario("An argument does not pickle", "that task fails, no other", "test_crossing.py")
def argument_does_not_pickle(open_pool: Callable[..., Pool]) -> None:
    only_it_fails(open_pool(), double, threading.Lock())


@scenario("An argument does not unpickle in the worker", "that task fails, no other", "test_crossing.py")
def argument_does_not_unpickle(open_pool: Callable[..., Pool]) -> None:
    only_it_fails(open_pool(), double, RaisesInUnpickling())


@scenario("Unpickling an argument exits the worker", "that task fails, no other", "test_crossing.py")
def unpickling_exits(open_pool: Callable[..., Pool]) -> None:
    only_it_fails(open_pool(), double, ExitsInUnpickling())


@scenario("A result does not pickle", "that task fails, no other", "test_crossing.py")
def result_does_not_pickle(open_pool: Callable[..., Pool]) -> None:
    only_it_fails(open_pool(), return_lock)


@scenario("A result does not unpickle in the program", "that task fails, no other", "test_crossing.py")
def result_does_not_unpickle(open_pool: Callable[..., Pool]) -> None:
    only_it_fails(open_pool(), return_what_does_not_unpickle)


@scenario("An exception does not pickle", "that task fails, no other", "test_crossing.py")
def exception_does_not_pickle(open_pool: Callable[..., Pool]) -> None:
    only_it_fails(open_pool(), raise_lock)


@scenario(
    "An exception does not unpickle: its constructor takes other arguments",
    "that task fails, no other",
    "test_crossing.py",
)
def exception_does_not_unpickle(open_pool: Callable[..., Pool]) -> None:
    only_it_fails(open_pool(), raise_picky)


@scenario("An exception that is false is raised", "it arrives as an exception", "test_crossing.py")
def falsy_exception(open_pool: Callable[..., Pool]) -> None:
    only_it_fails(open_pool(), raise_falsy)


@scenario("A task returns an exception", "it is a value", "test_crossing.py")
def returned_exception(open_pool: Callable[..., Pool]) -> None:
    it_returns(open_pool(), return_exception, None, lambda value: isinstance(value, ValueError))


@scenario(r"A task returns `'\0'`", "it is a value", "test_crossing.py")
def returned_nul(open_pool: Callable[..., Pool]) -> None:
    it_returns(open_pool(), return_nul, None, lambda value: value == "\0")


# -- time -------------------------------------------------------------------------------------------------------------


def limited(pool: Pool, fn: Callable[..., Any]) -> None:
    only_it_fails(pool, fn, None, submit=lambda fn, item: pool.submit_limited(fn, item, 0.5))


@scenario("A task runs for longer than its limit", "that task fails, no other", "tests/contract/test_options.py")
def overdue(open_pool: Callable[..., Pool]) -> None:
    limited(open_pool(), hold)


@scenario(
    "The same in a C function that keeps the interpreter", "that task fails, no other", "tests/contract/test_options.py"
)
def overdue_in_c(open_pool: Callable[..., Pool]) -> None:
    limited(open_pool(), hold_in_c)


@scenario("A running task is to be ended", "that task fails, no other", "tests/contract/test_options.py")
def killed_by_the_user(open_pool: Callable[..., Pool]) -> None:
    pool = open_pool()
    must_be_usable(pool)
    handle = pool.submit(hold)
    others = [pool.submit(double, n) for n in range(OTHERS)]
    time.sleep(0.3)  # it has begun: the others do not wait for it
    pool.kill(handle)
    try:
        pool.result(handle)
    except NeverCameError:
        raise Failed("hangs", "the task goes on") from None
    except BaseException:  # noqa: BLE001 - what the library says of it
        pass
    try:
        if [pool.result(other) for other in others] != [2 * n for n in range(OTHERS)]:
            raise Failed("wrong", "other tasks give something else")
    except NeverCameError:
        raise Failed("hangs", "results of other tasks never come") from None
    must_be_usable(pool)
    must_end(pool)


@scenario("A task that waits is cancelled", "it never runs", "tests/contract/test_engines.py")
def cancelled(open_pool: Callable[..., Pool]) -> None:
    pool = open_pool()
    must_be_usable(pool)
    busy = [pool.submit(double_slowly, n) for n in range(40)]
    last = pool.submit(double_slowly, 40)
    if not pool.cancel(last):
        raise Failed("wrong", "it can't be cancelled though it waits")
    for handle in busy:
        pool.result(handle)
    must_be_usable(pool)
    must_end(pool)


@scenario(
    "A task whose worker dies may begin again", "it succeeds at the second attempt", "tests/contract/test_options.py"
)
def retried(open_pool: Callable[..., Pool]) -> None:
    import tempfile

    pool = open_pool()
    with tempfile.TemporaryDirectory() as folder:
        handle = pool.submit_retried(die_once, os.path.join(folder, "tried"))
        if pool.result(handle) != "survived":
            raise Failed("wrong", "it gives something else")
    must_be_usable(pool)
    must_end(pool)


def die_once(path: str) -> str:
    if os.path.exists(path):
        return "survived"
    with open(path, "w"):
        pass
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


# -- bounds -----------------------------------------------------------------------------------------------------------


@scenario("Endless input to imap, a slow consumer", "at most 100,000 items are read ahead", "test_bounds.py")
def endless_input(open_pool: Callable[..., Pool]) -> None:
    pool = open_pool()
    read = 0
    enough = 300_000

    def numbers() -> Iterator[int]:
        nonlocal read
        for read in range(enough):  # noqa: UP028 - how far it was read is the question
            yield read

    outcome: list[Any] = []

    def consume() -> None:
        try:
            stream = iter(pool.stream(double, numbers()))
            outcome.append(next(stream))
            time.sleep(60)  # a slow consumer
        except BaseException as error:  # noqa: BLE001 - told by the thread that waits
            outcome.append(error)

    threading.Thread(target=consume, daemon=True).start()
    deadline, seen = time.monotonic() + 20.0, -1
    while time.monotonic() < deadline and not (outcome and isinstance(outcome[0], BaseException)) and read > seen:
        seen = read
        time.sleep(1.0)
    if outcome and isinstance(outcome[0], BaseException):
        raise outcome[0]
    if read > 100_000:
        raise Failed("breaks", "reads the input to its end, however long it is")
    if not outcome:
        raise Failed("hangs", "no result comes")
    pool.peer.close()


@scenario("The input of imap raises midway", "its exception arrives, once what came before it has", "test_bounds.py")
def input_raises(open_pool: Callable[..., Pool]) -> None:
    pool = open_pool()

    def numbers() -> Iterator[int]:
        yield from range(10)
        raise LookupError("the input ends here")

    found: list[Any] = []
    outcome: list[BaseException] = []

    def consume() -> None:
        try:
            found.extend(pool.stream(double, numbers()))
        except BaseException as error:  # noqa: BLE001 - judged below
            outcome.append(error)

    thread = threading.Thread(target=consume, daemon=True)
    thread.start()
    thread.join(10.0)
    if thread.is_alive():
        raise Failed("hangs", "neither the results nor the exception come")
    if outcome and isinstance(outcome[0], NotOfferedError):
        raise outcome[0]
    if not outcome or not isinstance(outcome[0], LookupError):
        raise Failed("wrong", f"ends with {outcome[0]!r}" if outcome else "ends as if the input had ended")
    if len(found) != 10:
        raise Failed("wrong", f"gives {len(found)} of the 10 results before it")
    must_be_usable(pool)
    must_end(pool)


@scenario("100 pools, one after the other", "no process, descriptor or thread is left", "test_bounds.py")
def many_pools(open_pool: Callable[..., Pool]) -> None:
    def once() -> None:
        pool = open_pool()
        pool.result(pool.submit(double, 1))
        pool.close()

    for _ in range(3):
        once()
    gc.collect()
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(100 if os.environ.get("PROCFLOW_FAULTS_QUICK") is None else 5):
        once()
    gc.collect()
    after = len(os.listdir("/proc/self/fd")), threading.active_count()
    if after[0] > before[0] + 5:
        raise Failed("leaks", f"{after[0] - before[0]} descriptors")
    if after[1] > before[1] + 5:
        raise Failed("leaks", f"{after[1] - before[1]} threads")


# -- callbacks, nesting, forks ----------------------------------------------------------------------------------------


@scenario("A callback raises", "nothing else is harmed", "tests/contract/test_engines.py")
def callback_raises(open_pool: Callable[..., Pool]) -> None:
    pool = open_pool()
    handle = pool.submit_with_callback(double, 1, _raise)
    try:
        pool.result(handle)
    except NeverCameError:
        raise Failed("hangs", "the task's result never comes") from None
    must_be_usable(pool)
    must_end(pool)


def _raise(_: object) -> None:
    raise RuntimeError("this callback is broken")


@scenario("A task opens a pool", "it works", "test_shutdown.py")
def nested(open_pool: Callable[..., Pool]) -> None:
    pool = open_pool()
    it_returns(pool, pool_in_a_task, pool.name, lambda value: value == [0, 2, 4, 6])


@scenario("The program forks while the pool works", "the child's end harms nothing", "test_forks.py")
def program_forks(open_pool: Callable[..., Pool]) -> None:
    pool = open_pool()
    handles = [pool.submit(double_slowly, n) for n in range(20)]
    if (child := os.fork()) == 0:
        sys.exit(0)  # as most forks end: with the interpreter's clean-up
    deadline = time.monotonic() + 8.0
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise Failed("hangs", "the fork's end")
        time.sleep(0.01)
    try:
        found = [pool.result(handle) for handle in handles]
    except NeverCameError:
        raise Failed("hangs", "results never come") from None
    except BaseException as error:
        raise Failed("breaks", told(error)) from error
    if found != [2 * n for n in range(20)]:
        raise Failed("wrong", f"gives {found}")
    must_be_usable(pool)
    must_end(pool)


# -- the end of the program: judged from outside ----------------------------------------------------------------------


def say_ready() -> None:
    print("ready", flush=True)


@scenario(
    "The program is killed (SIGKILL) while its workers are idle",
    "all of them end within 2 s",
    "test_parent_death.py",
    act="kill",
)
def parent_killed_idle(open_pool: Callable[..., Pool]) -> None:
    pool = open_pool()
    must_be_usable(pool)
    say_ready()
    time.sleep(60)


@scenario("The same while they run tasks", "all of them end within 2 s", "test_parent_death.py", act="kill")
def parent_killed_busy(open_pool: Callable[..., Pool]) -> None:
    pool = open_pool()
    must_be_usable(pool)
    for _ in range(2):
        pool.submit(hold)
    time.sleep(0.5)
    say_ready()
    time.sleep(60)


@scenario("The same while they are in a long C call", "all of them end within 2 s", "test_parent_death.py", act="kill")
def parent_killed_in_c(open_pool: Callable[..., Pool]) -> None:
    pool = open_pool()
    must_be_usable(pool)
    for _ in range(2):
        pool.submit(hold_in_c)
    time.sleep(0.5)
    say_ready()
    time.sleep(60)


@scenario(
    "Ctrl-C while the program waits for a map",
    "one `KeyboardInterrupt`, no traceback of a worker, no process left",
    "test_signals.py",
    act="ctrl-c",
)
def ctrl_c(open_pool: Callable[..., Pool]) -> None:
    pool = open_pool()
    must_be_usable(pool)
    threading.Timer(0.5, say_ready).start()
    pool.map(hold, [1, 2, 3, 4])


@scenario("The program ends without closing its pool", "it ends, and no worker is left", "test_shutdown.py")
def forgets_its_pool(open_pool: Callable[..., Pool]) -> None:
    globals()["kept"] = pool = open_pool()
    must_be_usable(pool)
