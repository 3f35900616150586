"""What the type checkers must refuse: an unused ignore is an error in both."""

from __future__ import annotations

from procflow.connection import Connection, Pipe, wait


def send_wrong(connection: Connection[int, str]) -> None:
    connection.send("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    number: int = connection.recv()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(number)


def send_the_wrong_way() -> None:
    reader, writer = Pipe[int](duplex=False)
    reader.send(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    writer.send(1)
    writer.send(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def swap_the_ends() -> None:
    client, _ = Pipe[int, str]()
    wrong: Connection[str, int] = client  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(wrong)


def wait_for_text() -> None:
    wait(["text"])  # type: ignore[type-var]  # pyright: ignore[reportCallIssue, reportArgumentType]


def wait_for_text_too(connection: Connection[int, str]) -> None:
    wait([connection, "text"])  # type: ignore[type-var]  # pyright: ignore[reportCallIssue, reportArgumentType]
    wait([connection, 3, None])  # type: ignore[type-var]  # pyright: ignore[reportCallIssue, reportArgumentType]
    wait(3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


def send_what_is_not_for_it(connection: Connection[int, str], sentinel: int) -> None:
    for ready in wait([connection, sentinel]):
        ready.close()  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
