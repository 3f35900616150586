"""Process.result() and stop(): what a target returns or raises comes back, and stop() leaves nothing running."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from procflow.connection import Pipe
from procflow.errors import PicklingError, ProcessDied, ProcessStateError, RemoteTraceback, TimeoutError
from tests.integration import targets_process as targets
from tests.integration.targets_process import wait_gone
from tests.support import DEADLOCK, open_fds


def result_of(ctx: Any, target: Any, *args: object) -> Any:
    with ctx.Process(target=target, args=args) as process:
        return process.result(DEADLOCK)


@pytest.mark.parametrize(
    "value", [None, 0, False, "text", [1, {"a": (2,)}], ValueError("returned, not raised")], ids=repr
)
def test_the_result_is_what_the_target_returns(ctx: Any, value: Any) -> None:
    with ctx.Process(target=targets.returns, args=(value,)) as process:
        got = process.result(DEADLOCK)
        assert repr(got) == repr(value)
        assert process.result() is got
    assert process.exitcode == 0


def test_join_ends_although_nobody_reads_a_result_of_200_mb(ctx: Any) -> None:
    with ctx.Process(target=targets.returns_bytes, args=(200_000_000,)) as process:
        process.join(DEADLOCK)
        assert process.exitcode == 0
        got = process.result()
    assert (len(got), got[:1], got[-1:]) == (200_000_000, b"x", b"x")


def test_an_array_arrives_as_the_callers_own(ctx: Any) -> None:
    numpy = pytest.importorskip("numpy")
    first, small, last = result_of(ctx, targets.returns_arrays)
    assert (first == numpy.arange(300_000)).all()
    assert (small.tolist(), last.shape, last.dtype) == ([1], (200, 300), numpy.dtype("float32"))
    first[0] = 7  # it may be written to
    assert (first[0], last[0, 0]) == (7, 0)


def test_an_exception_comes_with_its_traceback_and_stays_on_stderr(ctx: Any, capfd: pytest.CaptureFixture[str]) -> None:
    process = ctx.Process(target=targets.raises)
    process.start()
    with pytest.raises(ValueError, match="from the child") as caught:
        process.result(DEADLOCK)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "in raises" in str(caught.value.__cause__)
    assert process.exitcode == 1
    assert "ValueError: from the child" in capfd.readouterr().err


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_process_has_died_and_says_why(ctx: Any, signum: int) -> None:
    process = ctx.Process(target=targets.kills_itself, args=(signum,), name="victim")
    with process, pytest.raises(ProcessDied, match=signal.Signals(signum).name) as caught:
        process.result(DEADLOCK)
    assert (caught.value.name, caught.value.pid, caught.value.exitcode) == ("victim", process.pid, -signum)


@pytest.mark.parametrize("code", [0, 3])
def test_sys_exit_is_no_result(ctx: Any, code: int) -> None:
    with pytest.raises(ProcessDied, match=rf"exited with code {code} .*sys\.exit") as caught:
        result_of(ctx, targets.exits, code)
    assert caught.value.exitcode == code


def test_an_interrupt_of_the_process_is_not_raised_here_as_ones_own(
    ctx: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    ready, theirs = Pipe()
    with ready, theirs, ctx.Process(target=targets.blocks, args=(theirs,)) as process:
        ready.recv(DEADLOCK)
        process.interrupt()
        with pytest.raises(ProcessDied) as caught:
            process.result(DEADLOCK)
    assert isinstance(caught.value.__cause__, KeyboardInterrupt)
    assert "KeyboardInterrupt" in capfd.readouterr().err


def test_what_does_not_pickle_is_an_error_of_result_alone(ctx: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with ctx.Process(target=targets.returns_a_lock) as process, pytest.raises(PicklingError, match="lock"):
        process.result(DEADLOCK)
    assert (process.exitcode, capfd.readouterr().err) == (0, "")


def test_a_lambda_comes_back_by_value(ctx: Any) -> None:
    assert result_of(ctx, targets.returns_a_closure, 3)(4) == 7


def test_the_result_of_a_subclass_is_what_run_returns(method: str) -> None:
    with targets.SquareBy[method](7) as process:
        assert process.result(DEADLOCK) == 49


def test_no_result_in_time_is_a_timeout_error(ctx: Any) -> None:
    ready, theirs = Pipe()
    with ready, theirs:
        process = ctx.Process(target=targets.blocks, args=(theirs,))
        with pytest.raises(ProcessStateError, match="before start"):
            process.result()
        process.start()
        with pytest.raises(TimeoutError, match="still runs"):
            process.result(0.01)
        assert process.stop() == -signal.SIGTERM
        with pytest.raises(ProcessDied, match="SIGTERM"):
            process.result()
        process.close()
        with pytest.raises(ValueError, match="closed"):
            process.result()


def test_what_was_returned_counts_although_the_process_dies_later(ctx: Any) -> None:
    with ctx.Process(target=targets.returns_and_dies_at_exit) as process:
        assert process.result(DEADLOCK) == "done"
    assert process.exitcode == -signal.SIGKILL


def test_a_fork_that_comes_back_from_the_target_has_no_say(ctx: Any) -> None:
    assert result_of(ctx, targets.forks_and_returns) == "the process itself"


def test_a_target_that_closes_all_descriptors_spoils_no_file(ctx: Any, tmp_path: Path) -> None:
    file = tmp_path / "of the user"
    with ctx.Process(target=targets.closes_all_and_opens, args=(str(file),)) as process, pytest.raises(ProcessDied):
        process.result(DEADLOCK)
    assert file.read_bytes() == b"mine"


def test_a_result_that_nobody_asks_for_leaves_nothing_open(ctx: Any) -> None:
    before = len(open_fds())
    for _ in range(5):
        with ctx.Process(target=targets.returns, args=("unread",)):
            pass
    del _
    assert len(open_fds()) <= before + 2  # the last Process is still there


def test_stop_ends_the_processes_below_it_as_well(ctx: Any) -> None:
    ours, theirs = Pipe()
    with ours, theirs:
        process = ctx.Process(target=targets.keeps_grandchildren, args=(theirs,))
        process.start()
        below = ours.recv(DEADLOCK)
        assert process.stop(grace=5.0) == -signal.SIGTERM
        wait_gone(below)


def test_stop_of_a_process_that_has_ended_gives_its_exitcode(ctx: Any) -> None:
    process = ctx.Process(target=targets.exits, args=(4,))
    process.start()
    process.join(DEADLOCK)
    assert process.stop() == 4
    assert os.getpid() != process.pid
