"""Uses of Supervisor that mypy and pyright must reject. Each such line says so."""

from __future__ import annotations

from procflow import Supervisor
from procflow.supervisor import Started


def serve() -> None:
    pass


def wrong(event: Started) -> None:
    supervisor = Supervisor("all_for_one")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    supervisor.add(serve, restart="sometimes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    supervisor.add("serve")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    supervisor.stop(grace="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    supervisor.subscribe(lambda: None)  # type: ignore[misc, arg-type]  # pyright: ignore[reportArgumentType]
    event.name = "another"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
