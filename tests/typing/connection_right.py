"""What the type checkers infer for Pipe and Connection."""

from __future__ import annotations

import socket
from typing import Any, Never, assert_type

from procflow import Future, Process
from procflow.connection import Connection, Pipe, wait


class Request:
    pass


class Response:
    pass


def infer_pipes(duplex: bool) -> None:
    one, other = Pipe()
    assert_type(one, Connection[Any, Any])
    assert_type(other, Connection[Any, Any])
    reader, writer = Pipe(duplex=False)
    assert_type(reader, Connection[Never, Any])
    assert_type(writer, Connection[Any, Never])
    assert_type(Pipe(duplex), tuple[Connection[Any, Any], Connection[Any, Any]])
    client, server = Pipe[Request, Response]()
    assert_type(client, Connection[Request, Response])
    assert_type(server, Connection[Response, Request])
    assert_type(Pipe[int]()[0], Connection[int, int])
    source, sink = Pipe[int](duplex=False)
    assert_type(source, Connection[Never, int])
    assert_type(sink, Connection[int, Never])


def infer_messages(connection: Connection[Request, Response], plain: Connection) -> None:
    assert_type(connection.recv(), Response)
    assert_type(connection.recv(timeout=1.0), Response)
    assert_type(connection.recv_bytes(10, timeout=1), bytes)
    for response in connection:
        assert_type(response, Response)
    connection.send(Request())
    connection.send_bytes(bytearray(3))
    assert_type(plain.recv(), Any)
    with connection as entered:
        assert_type(entered, Connection[Request, Response])


def infer_wait(first: Connection[int, str], second: Connection[int, str], sock: socket.socket) -> None:
    assert_type(wait([first, second]), list[Connection[int, str]])
    assert_type(wait([1, 2], 0.5), list[int])
    mixed: list[Connection[int, str] | socket.socket | int] = [first, sock, 3]
    assert_type(wait(mixed), list[Connection[int, str] | socket.socket | int])


def wait_for_a_mixture(
    connection: Connection[int, str], other: Connection[bytes, bytes], process: Process, sock: socket.socket
) -> None:
    # What is inferred of such a list differs between the checkers; both accept it, and what is done with its items.
    for ready in wait([connection, process.sentinel]):
        if isinstance(ready, int):
            assert_type(ready, int)
        else:
            ready.send(ready.recv_bytes_into(bytearray(3)))
    for one in wait((process.sentinel, other), timeout=1.0):
        print(one if isinstance(one, int) else one.fileno())
    assert len(wait([connection, other])) + len(wait([other, connection, 3])) + len(wait([connection, sock, 3])) < 9
    for found in wait([connection, sock, process.sentinel]):
        print(found if isinstance(found, int) else found.fileno())


def vary(connection: Connection[object, bool]) -> None:
    # An end that sends anything and receives bools serves where ints are sent and received.
    narrower: Connection[int, int] = connection
    narrower.send(1)


def waits_for_all_kinds(connection: Connection[int, str], process: Process[int], future: Future[int]) -> None:
    assert_type(wait([process]), list[Process[int]])
    assert_type(wait([future]), list[Future[int]])
    for ready in wait([connection, process, future], 1.0):
        if ready is process:
            print(process.result())


async def receives(connection: Connection[int, str]) -> None:
    assert_type(await connection.arecv(), str)
    await connection.asend(1)
    async for message in connection:
        assert_type(message, str)
