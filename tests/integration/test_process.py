"""Process: what multiprocessing documents, under each start method, and the clear errors around it."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import re
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from procflow.context import get_context
from procflow.errors import PicklingError, ProcessStateError
from procflow.process import Process
from tests.integration import targets_process as targets
from tests.support import DEADLOCK


@pytest.fixture(scope="module", autouse=True)
def heap() -> None:
    """multiprocessing's shared heap stays once it is there."""
    get_context("fork").Value("i")


def run(ctx: Any, target: Any, *args: object, **options: Any) -> Any:
    process = ctx.Process(target=target, args=args, **options)
    process.start()
    process.join(DEADLOCK)
    return process


def test_a_child_that_returns_has_exitcode_zero(ctx: Any) -> None:
    process = ctx.Process(target=targets.nothing)
    assert (process.exitcode, process.pid, process.is_alive()) == (None, None, False)
    process.start()
    assert process.pid == process.ident
    process.join(DEADLOCK)
    assert (process.exitcode, process.is_alive()) == (0, False)


@pytest.mark.parametrize(("code", "exitcode"), [(None, 0), (0, 0), (3, 3), ("a message", 1), (True, 1)])
def test_sys_exit_sets_the_exitcode(ctx: Any, code: object, exitcode: int) -> None:
    assert run(ctx, targets.exits, code).exitcode == exitcode


def test_an_exception_gives_exitcode_one_and_a_traceback_on_stderr(ctx: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(ctx, targets.raises).exitcode == 1
    assert "ValueError: from the child" in capfd.readouterr().err


def test_the_output_of_a_child_goes_where_stdout_goes_now(ctx: Any, capfd: pytest.CaptureFixture[str]) -> None:
    run(ctx, targets.writes, "hello")
    assert capfd.readouterr() == ("hello\n", "hello\n")


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_child_killed_by_a_signal_has_the_negative_exitcode(ctx: Any, signum: int) -> None:
    assert run(ctx, targets.kills_itself, signum).exitcode == -signum


@pytest.mark.parametrize(("verb", "exitcode"), [("terminate", -signal.SIGTERM), ("kill", -signal.SIGKILL)])
def test_a_signal_right_after_start_is_not_lost(ctx: Any, verb: str, exitcode: int) -> None:
    ready, theirs = multiprocessing.Pipe()
    with ready, theirs:
        process = ctx.Process(target=targets.blocks, args=(theirs,))
        process.start()
        getattr(process, verb)()
        process.join(DEADLOCK)
        assert process.exitcode == exitcode


def test_interrupt_raises_keyboard_interrupt_in_the_child(ctx: Any, capfd: pytest.CaptureFixture[str]) -> None:
    ready, theirs = multiprocessing.Pipe()
    with ready, theirs:
        process = ctx.Process(target=targets.blocks, args=(theirs,))
        process.start()
        assert ready.poll(DEADLOCK)
        process.interrupt()
        process.join(DEADLOCK)
    assert process.exitcode == 1
    assert "KeyboardInterrupt" in capfd.readouterr().err


def test_stop_kills_what_refuses_to_terminate(ctx: Any) -> None:
    ready, theirs = multiprocessing.Pipe()
    with ready, theirs:
        process = ctx.Process(target=targets.refuses_sigterm, args=(theirs,))
        process.start()
        assert ready.poll(DEADLOCK)
        assert process.stop(grace=0.1) == -signal.SIGKILL


def test_with_joins_on_success_and_stops_on_an_exception(ctx: Any) -> None:
    with ctx.Process(target=targets.exits, args=(4,)) as process:
        pass
    assert process.exitcode == 4
    ready, theirs = multiprocessing.Pipe()
    with ready, theirs:
        with pytest.raises(ZeroDivisionError), ctx.Process(target=targets.blocks, args=(theirs,)) as process:
            raise ZeroDivisionError
        assert process.exitcode == -signal.SIGTERM


@pytest.mark.parametrize(
    ("args", "expected"), [("A", ("A",)), ([1, 2], (1, 2)), (range(2), (0, 1)), ({3: 4}, (3,))], ids=str
)
def test_args_may_be_any_iterable(ctx: Any, args: Any, expected: Any) -> None:
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        process = ctx.Process(target=targets.sends_args, args=iter([theirs, *args]), kwargs={"key": 5})
        process.start()
        assert ours.poll(DEADLOCK)
        assert ours.recv() == (expected, {"key": 5})
        process.join(DEADLOCK)


def test_a_subclass_may_override_run(method: str) -> None:
    ours, theirs = multiprocessing.Pipe()
    import procflow

    procflow.set_start_method(method, force=True)
    try:
        with ours, theirs:
            process = targets.Doubler(21, theirs)
            process.start()
            assert ours.poll(DEADLOCK)
            assert ours.recv() == 42
            process.join(DEADLOCK)
    finally:
        procflow.set_start_method(None, force=True)  # what one test uses, another finds not set


def test_a_child_knows_itself_and_its_parent(ctx: Any, method: str) -> None:
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        process = run(ctx, targets.describes_itself, theirs, name="Somebody", daemon=True)
        assert ours.recv() == {
            "pid": process.pid,
            "name": "Somebody",
            "daemon": True,
            "authkey": bytes(multiprocessing.current_process().authkey),
            "parent_pid": os.getpid(),
            "parent_name": multiprocessing.current_process().name,
            "parent_alive": True,
            "method": method,
            "stdin": b"",
        }


def test_a_child_has_the_present_surroundings_of_its_parent(
    ctx: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    run(ctx, targets.nothing)  # a fork server runs now, with other surroundings
    monkeypatch.setenv("PROCFLOW_TEST", "now")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["program", "--flag"])
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    before = os.umask(0o027)
    ours, theirs = multiprocessing.Pipe()
    try:
        with ours, theirs:
            run(ctx, targets.surroundings, theirs)
            env, cwd, umask, argv, path = ours.recv()
    finally:
        os.umask(before)
    assert (env, cwd, umask, argv) == ("now", str(tmp_path), 0o027, ["program", "--flag"])
    assert str(tmp_path / "modules") in path


def test_what_multiprocessing_shares_passes_as_an_argument(ctx: Any) -> None:
    ours, theirs = multiprocessing.Pipe()
    lock, queue, event, semaphore = ctx.RLock(), ctx.Queue(), ctx.Event(), ctx.BoundedSemaphore(2)
    value, array = ctx.Value("i", 1), ctx.Array("i", 3)
    with ours, theirs:
        process = run(ctx, targets.uses_everything, lock, queue, event, value, array, semaphore, theirs)
        assert process.exitcode == 0
        assert (queue.get(timeout=DEADLOCK), ours.recv()) == ("through the queue", "through the pipe")
    assert (event.is_set(), value.value, array[:]) == (True, 2, [7, 0, 0])
    queue.close()
    queue.join_thread()


def test_a_lambda_and_a_closure_run_in_a_child(ctx: Any) -> None:
    code = 6
    assert run(ctx, lambda: sys.exit(code)).exitcode == 6


@pytest.mark.parametrize("method", ["spawn", "forkserver"])  # for fork nothing is pickled
def test_an_argument_that_does_not_pickle_is_an_error_in_start_that_names_it(ctx: Any) -> None:
    lock = threading.Lock()
    given: list[tuple[str, dict[str, Any]]] = [
        ("args[1]", {"args": (3, [lock])}),
        ("kwargs['code']", {"args": (3,), "kwargs": {"code": lock}}),
        ("the target", {"target": lock.acquire}),
    ]
    for place, arguments in given:
        process = ctx.Process(name="bee", **{"target": targets.exits, **arguments})
        with pytest.raises(PicklingError, match=f"^{re.escape(place)} of the process 'bee'.*cannot pickle") as caught:
            process.start()
        assert isinstance(caught.value.__cause__, TypeError)
        assert process.exitcode is None
        assert process not in multiprocessing.active_children()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("name", ["Lock", "RLock", "Semaphore", "Event", "Queue", "Value"])
def test_a_lock_made_for_fork_is_refused_with_the_way_to_make_another(method: str, name: str, ctx: Any) -> None:
    made = getattr(multiprocessing.get_context("fork"), name)(*["i"] * (name == "Value"))
    process = ctx.Process(target=targets.exits, args=(made,))
    with pytest.raises(PicklingError, match=rf"args\[0\] .*get_context\('{method}'\)\.{name}\(\)"):
        process.start()
    process = ctx.Process(target=targets.exits, args=({"in": [made]},))
    with pytest.raises(PicklingError, match=rf"args\[0\] .* of type dict, .*get_context\('{method}'\)\.\w+\(\)"):
        process.start()


def test_multiprocessing_counts_it_among_its_children(ctx: Any) -> None:
    ready, theirs = multiprocessing.Pipe()
    with ready, theirs, pytest.raises(KeyError), ctx.Process(target=targets.blocks, args=(theirs,)) as process:
        assert process in multiprocessing.active_children()
        assert process in ctx.active_children()
        raise KeyError
    assert process not in multiprocessing.active_children()


def test_a_daemonic_process_may_not_have_children(ctx: Any) -> None:
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        run(ctx, targets.starts_a_child, theirs, daemon=True)
        name, text = ours.recv()
        assert name == "ProcessStateError"
        assert "daemonic processes are not allowed to have children" in text
        run(ctx, targets.starts_a_child, theirs)
        assert ours.recv() == ("exitcode", 0)


def test_the_sentinel_fires_although_a_grandchild_holds_everything(ctx: Any) -> None:
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        process = ctx.Process(target=targets.leaves_a_grandchild, args=(theirs,))
        process.start()
        assert ours.poll(DEADLOCK)
        grandchild = ours.recv()
        try:
            assert multiprocessing.connection.wait([process.sentinel], DEADLOCK) == [process.sentinel]
            process.join(DEADLOCK)
            assert process.exitcode == 0
        finally:
            os.kill(grandchild, signal.SIGKILL)


def test_join_with_a_timeout_returns_while_the_child_runs(ctx: Any) -> None:
    ready, theirs = multiprocessing.Pipe()
    with ready, theirs:
        process = ctx.Process(target=targets.blocks, args=(theirs,))
        process.start()
        process.join(0.01)
        assert (process.exitcode, process.is_alive()) == (None, True)
        process.stop()


def test_after_close_every_use_is_a_value_error(ctx: Any) -> None:
    process = run(ctx, targets.nothing)
    process.close()
    process.close()
    for use in (
        process.start,
        process.join,
        process.is_alive,
        process.terminate,
        process.kill,
        process.interrupt,
        process.stop,
        lambda: process.pid,
        lambda: process.exitcode,
        lambda: process.sentinel,
    ):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_close_while_running_is_a_value_error(ctx: Any) -> None:
    ready, theirs = multiprocessing.Pipe()
    with ready, theirs:
        process = ctx.Process(target=targets.blocks, args=(theirs,))
        process.start()
        with pytest.raises(ValueError, match="still running"):
            process.close()
        process.stop()


def test_a_use_that_does_not_fit_the_state_is_a_clear_error(ctx: Any) -> None:
    process = ctx.Process(target=targets.nothing)
    for use in (process.join, process.terminate, process.kill, process.interrupt, process.stop):
        with pytest.raises(ProcessStateError, match="before start"):
            use()
    process.start()
    with pytest.raises(ProcessStateError, match="twice"):
        process.start()
    with pytest.raises(ProcessStateError, match="daemonic"):
        process.daemon = True
    process.join(DEADLOCK)
    with pytest.raises(ProcessStateError, match="group"):
        ctx.Process(group=1)


def test_a_subclass_that_forgets_the_constructor_is_told_so() -> None:
    with pytest.raises(ProcessStateError, match=r"Forgetful has to call super\(\)"):
        targets.Forgetful().start()


def test_another_process_can_not_use_it() -> None:
    process = Process(target=targets.nothing)
    pid = os.fork()
    if pid == 0:
        errors = 0
        for use in (process.start, process.join, process.is_alive):
            try:
                use()
            except ProcessStateError:
                errors += 1
        os._exit(errors)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3


def test_the_errors_are_raised_under_python_dash_o_too() -> None:
    code = "import procflow; p = procflow.Process()\ntry: p.join()\nexcept procflow.ProcessStateError: print('clear')"
    result = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "clear\n"
