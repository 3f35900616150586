"""Supervisor with real processes, under each start method: they come back, they end in order, and none is left."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from procflow.errors import ProcessStateError, SupervisorGaveUp
from procflow.supervisor import Backoff, Exited, GaveUp, Ready, Restarted, Started, Supervisor
from tests.integration import targets_supervisor as targets
from tests.integration.targets_process import runs, wait_gone
from tests.support import DEADLOCK, PYTHONPATH, ROOT, wait_until

AT_ONCE = Backoff(first=0.0, jitter=0.0)


@pytest.fixture
def log(tmp_path: Path) -> str:
    return str(tmp_path / "log")


def lines(log: str) -> list[str]:
    return Path(log).read_text().splitlines() if os.path.exists(log) else []


def wait_lines(log: str, count: int) -> list[str]:
    wait_until(lambda: len(lines(log)) >= count, f"{count} lines in the log")
    return lines(log)


def pids(supervisor: Supervisor) -> list[int]:
    return [child.pid for child in supervisor.children() if child.pid is not None]


def wait_pids(supervisor: Supervisor, count: int) -> list[int]:
    """A child may work before its supervisor has told that it started it."""
    wait_until(lambda: len(pids(supervisor)) == count, f"{count} children that run")
    return pids(supervisor)


class Events(list[Any]):
    """A callback that keeps what it is called with."""

    def __init__(self, supervisor: Supervisor) -> None:
        super().__init__()
        supervisor.subscribe(self.append)

    def wait(self, kind: type, name: str, count: int = 1) -> list[Any]:
        def found() -> list[Any]:
            return [event for event in self if isinstance(event, kind) and event.name == name]

        wait_until(lambda: len(found()) >= count, f"{count} {kind.__name__} of {name}")
        return found()


def test_children_start_in_order_and_stop_in_reverse(ctx: Any, log: str) -> None:
    supervisor = Supervisor(context=ctx)
    gate = ctx.Event()
    supervisor.add(targets.works_slowly_at_first, (log, "first", gate), name="first", ready=DEADLOCK)
    supervisor.add(targets.works, (log,), {"name": "second"}, name="second")
    starter = threading.Thread(target=supervisor.start)
    starter.start()
    wait_until(lambda: [child.state for child in supervisor.children()] == ["starting", "idle"])
    gate.set()
    starter.join(DEADLOCK)
    assert [child.state for child in supervisor.children()] == ["ready", "ready"]
    begun = wait_lines(log, 3)
    assert begun[0] == "first is ready"
    supervisor.stop()
    assert lines(log)[3:] == ["second ends", "first ends"]
    assert [child.state for child in supervisor.children()] == ["done", "done"]
    supervisor.stop()


def test_a_killed_child_comes_back_alone(ctx: Any, log: str) -> None:
    with Supervisor(context=ctx) as supervisor:
        events = Events(supervisor)
        supervisor.add(targets.works, (log, "first"), name="first", backoff=AT_ONCE)
        supervisor.add(targets.works, (log, "second"), name="second")
        wait_lines(log, 2)
        first, second = wait_pids(supervisor, 2)
        os.kill(first, signal.SIGKILL)
        (again,) = events.wait(Restarted, "first")
        assert (again.restarts, again.pid != first) == (1, True)
        assert events.wait(Exited, "first") == [Exited("first", first, -signal.SIGKILL, "crashed", 0.0)]
        wait_lines(log, 3)
        assert pids(supervisor) == [again.pid, second]
    assert sorted(lines(log)[3:]) == ["first ends", "second ends"]


@pytest.mark.parametrize(("strategy", "same"), [("one_for_all", 0), ("rest_for_one", 1)])
def test_a_group_is_restarted_together(ctx: Any, log: str, strategy: Any, same: int) -> None:
    with Supervisor(strategy, context=ctx) as supervisor:
        events = Events(supervisor)
        for name in ("first", "second", "third"):
            supervisor.add(targets.works, (log, name), name=name, backoff=AT_ONCE)
        wait_lines(log, 3)
        before = wait_pids(supervisor, 3)
        os.kill(before[1], signal.SIGKILL)
        events.wait(Restarted, "third")
        after = wait_pids(supervisor, 3)
        assert sum(one == other for one, other in zip(before, after, strict=True)) == same
        assert wait_lines(log, 4)[3] == "third ends"


def test_one_restart_too_many_stops_all_and_is_raised(ctx: Any, log: str) -> None:
    supervisor = Supervisor(max_restarts=2, within=DEADLOCK, context=ctx)
    events = Events(supervisor)
    supervisor.add(targets.works, (log, "steady"), name="steady")
    supervisor.add(targets.exits, (3,), name="falls", backoff=AT_ONCE)
    with pytest.raises(SupervisorGaveUp, match=r"'falls' fell again .*2 restarts within") as caught, supervisor:
        supervisor.join(DEADLOCK)
    assert (caught.value.name, caught.value.why) == ("falls", "crashed")
    assert events[-2] == GaveUp("falls", "crashed", 2, DEADLOCK)
    assert [event.exitcode for event in events if isinstance(event, Exited) and event.name == "falls"] == [3, 3, 3]
    assert pids(supervisor) == []


def test_join_returns_when_all_have_finished(ctx: Any) -> None:
    with Supervisor(context=ctx) as supervisor:
        events = Events(supervisor)
        supervisor.add(targets.exits, (0,), restart="transient")
        supervisor.add(targets.exits, (1,), restart="temporary")
        assert supervisor.join(DEADLOCK)
        assert [(event.name, event.why) for event in sorted(events, key=str) if isinstance(event, Exited)] == [
            ("exits", "finished"),
            ("exits-2", "crashed"),
        ]
        with pytest.raises(ProcessStateError, match="no more"):
            supervisor.add(targets.waits)


def test_join_with_a_timeout_tells_that_children_run(ctx: Any) -> None:
    with Supervisor(context=ctx) as supervisor:
        supervisor.add(targets.waits)
        assert not supervisor.join(0.01)


def test_what_refuses_to_end_is_killed_after_its_grace(ctx: Any, log: str) -> None:
    with Supervisor(context=ctx) as supervisor:
        events = Events(supervisor)
        supervisor.add(targets.refuses, (log,), name="stubborn", shutdown=0.05)
        supervisor.add(targets.refuses, (log,), name="very stubborn", shutdown=None)
        wait_lines(log, 2)
        supervisor.stop(grace=0.2)
        assert {event.exitcode for event in events if isinstance(event, Exited)} == {-signal.SIGKILL}


def test_a_child_that_is_never_ready_is_given_up(ctx: Any) -> None:
    supervisor = Supervisor(max_restarts=1, context=ctx)
    events = Events(supervisor)
    supervisor.add(targets.never_ready, name="late", ready=0.05, backoff=AT_ONCE)
    with pytest.raises(SupervisorGaveUp, match="not ready"):
        supervisor.start()
    assert [event.why for event in events if isinstance(event, Exited)] == ["not ready", "not ready"]


def test_a_child_that_falls_silent_is_restarted(ctx: Any, log: str) -> None:
    with Supervisor(context=ctx) as supervisor:
        events = Events(supervisor)
        supervisor.add(targets.hangs_once, (log,), name="hangs", ready=DEADLOCK, heartbeat=1.0, backoff=AT_ONCE)
        events.wait(Ready, "hangs", 2)
        assert events.wait(Exited, "hangs")[0].why == "silent"


def test_a_target_that_does_not_pickle_is_told_and_given_up(method: str, ctx: Any) -> None:
    if method == "fork":
        pytest.skip("nothing is pickled")
    supervisor = Supervisor(max_restarts=1, context=ctx)
    supervisor.add(targets.waits, name="sound")
    supervisor.add(print, (threading.Lock(),), name="odd", backoff=AT_ONCE)
    with pytest.raises(SupervisorGaveUp, match=r"not started.*pickle"):
        supervisor.start()
    assert pids(supervisor) == []


def test_a_supervisor_within_a_supervisor(ctx: Any, log: str) -> None:
    inner = Supervisor(max_restarts=0, context=ctx)
    inner.add(targets.works, (log, "inner one"), name="one")
    inner.add(targets.works, (log, "inner two"), name="two")
    with Supervisor(context=ctx) as outer:
        events = Events(outer)
        outer.add(inner, name="inner", backoff=AT_ONCE)
        outer.add(targets.works, (log, "outer"), name="outer")
        with pytest.raises(ProcessStateError, match="supervised"):
            inner.start()
        wait_lines(log, 3)
        before = wait_pids(inner, 2)
        os.kill(before[0], signal.SIGKILL)  # one too many for the inner one: it stops, and the outer one restarts it
        events.wait(Restarted, "inner")
        assert events.wait(Exited, "inner")[0].detail == "gave up: 'one' crashed"
        assert not set(before) & set(wait_pids(inner, 2))
        wait_lines(log, 6)
    assert lines(log)[-3:] == ["outer ends", "inner two ends", "inner one ends"]


def test_a_supervisor_in_a_child_process_ends_its_own_in_order(ctx: Any, log: str) -> None:
    with Supervisor(context=ctx) as outer:
        outer.add(targets.supervises, (log,), name="inner")
        wait_lines(log, 2)
    assert lines(log)[2:] == ["inner two ends", "inner one ends"]


def test_what_a_child_has_started_ends_with_it(ctx: Any, log: str) -> None:
    with Supervisor(context=ctx) as supervisor:
        supervisor.add(targets.with_grandchild, (log,))
        (below,) = map(int, wait_lines(log, 1))
        assert runs(below)
    wait_gone([below])


def test_a_kill_storm_leaves_every_child_running_and_nothing_else(ctx: Any) -> None:
    storm = random.Random(4)
    with Supervisor(max_restarts=1000, within=1.0, context=ctx) as supervisor:
        events = Events(supervisor)
        names = [f"child {number}" for number in range(4)]
        for name in names:
            supervisor.add(targets.waits, name=name, backoff=AT_ONCE)
        wait_until(lambda: len(pids(supervisor)) == 4)
        killed: set[int] = set()
        while len(killed) < 40:
            alive = [pid for pid in pids(supervisor) if pid not in killed]
            for pid in storm.sample(alive, storm.randint(0, len(alive))):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        wait_until(lambda: sum(child.restarts for child in supervisor.children()) == len(killed))
        wait_until(lambda: [child.state for child in supervisor.children()] == ["ready"] * 4)
        assert all(map(runs, pids(supervisor)))
        assert not killed & set(pids(supervisor))
    # The end of it has waited for the thread that tells of events, after the state that it tells of.
    assert sum(isinstance(event, Restarted) for event in events) == len(killed)


def test_a_callback_that_raises_is_logged_and_ends_nothing(ctx: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "procflow.supervisor"), Supervisor(context=ctx) as supervisor:

        def raises(event: object) -> None:
            raise ZeroDivisionError

        supervisor.subscribe(raises)
        heard: list[object] = []
        subscription = supervisor.subscribe(heard.append)
        supervisor.add(targets.waits, name="child")
        wait_until(lambda: len(heard) == 1)
        subscription.close()
        subscription.close()  # as often as one likes
        supervisor.stop()
        assert [type(event) for event in heard] == [Started]
    assert "ZeroDivisionError" in caplog.text
    events = [getattr(record, "event", None) for record in caplog.records]
    assert any(isinstance(event, Started) and event.name == "child" for event in events)
    assert "child: started" in caplog.text


def test_a_callback_may_stop_the_supervisor(ctx: Any) -> None:
    with Supervisor(context=ctx) as supervisor:
        supervisor.subscribe(lambda event: supervisor.stop() if isinstance(event, Started) else None)
        supervisor.add(targets.waits)
        assert supervisor.join(DEADLOCK)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)])
def test_a_signal_to_the_whole_program_ends_all_in_order(method: str, log: str, signum: int, code: int) -> None:
    program = start_program("program", method, log)
    try:
        wait_lines(log, 3)
        os.killpg(program.pid, signum) if signum == signal.SIGINT else program.send_signal(signum)
        _, errors = program.communicate(timeout=DEADLOCK)
    finally:
        program.kill()
        program.wait()
    assert lines(log)[3:] == ["third ends", "second ends", "first ends"]
    assert program.returncode == code, errors
    assert errors.count("Traceback") == (signum == signal.SIGINT)


def test_a_program_that_forgets_to_stop_ends_all_in_order(method: str, log: str) -> None:
    program = start_program("abandoned", method, log)
    _, errors = program.communicate(timeout=DEADLOCK)
    assert (program.returncode, errors) == (0, "")
    assert lines(log)[2:] == ["second ends", "first ends"]


def start_program(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.integration.targets_supervisor", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a terminal gives it
    )


def test_the_handler_of_sigterm_is_left_as_found(ctx: Any) -> None:
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with Supervisor(context=ctx):
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        with Supervisor(context=ctx):
            pass
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    mine = signal.signal(signal.SIGTERM, print)
    try:
        with Supervisor(context=ctx):
            assert signal.getsignal(signal.SIGTERM) is print
    finally:
        signal.signal(signal.SIGTERM, mine)


def test_options_that_make_no_sense_are_refused(ctx: Any) -> None:
    supervisor = Supervisor(context=ctx)
    assert repr(supervisor) == "<Supervisor one_for_one new, 0 children>"
    assert supervisor.add(targets.waits) == "waits"
    wrong: list[tuple[type[Exception], dict[str, Any]]] = [
        (ValueError, {"name": "waits"}),
        (ValueError, {"restart": "sometimes"}),
        (ValueError, {"shutdown": -1.0}),
        (TypeError, {"target": 3}),
        (ProcessStateError, {"target": supervisor}),
    ]
    for error, options in wrong:
        with pytest.raises(error):
            supervisor.add(**{"target": targets.waits, **options})
    with pytest.raises(ValueError, match="one_for_all"):
        Supervisor("all_for_one")  # type: ignore[arg-type]
    with pytest.raises(ProcessStateError, match="before start"):
        supervisor.join()
    assert [child.name for child in supervisor.children()] == ["waits"]
    supervisor.stop()
    with pytest.raises(ProcessStateError):
        supervisor.start()
