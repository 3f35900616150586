"""What mypy and pyright must infer of Supervisor. Checked by both; nothing is run."""

from __future__ import annotations

from typing import assert_type

from procflow import Backoff, Supervisor, get_context, heartbeat, notify_ready
from procflow.observe.audience import Subscription
from procflow.supervisor import ChildInfo, Exited, GaveUp, Ready, Restarted, Started


def serve(port: int) -> None:
    notify_ready()
    heartbeat()
    print(port)


def show(event: Started | Ready | Exited | Restarted | GaveUp) -> None:
    if isinstance(event, Exited):
        assert_type(event.exitcode, int | None)
        assert_type(event.restart_in, float | None)
    elif isinstance(event, Restarted):
        assert_type(event.restarts, int)


def check() -> None:
    with Supervisor("rest_for_one", max_restarts=1, within=2.0, context=get_context("spawn")) as supervisor:
        assert_type(supervisor, Supervisor)
        assert_type(supervisor.add(serve, (80,), name="web", restart="transient", backoff=Backoff(first=1.0)), str)
        assert_type(supervisor.add(Supervisor(), shutdown=None), str)
        assert_type(supervisor.subscribe(show), Subscription)
        assert_type(supervisor.children(), tuple[ChildInfo, ...])
        assert_type(supervisor.join(1.0), bool)
        supervisor.stop(grace=1.0)
