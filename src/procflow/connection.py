"""Pipe, Connection and wait: multiprocessing's, typed, with timeouts and whole messages; no end goes unnoticed.

What crosses is the matter of `wire.stream`, the life of the descriptor of `wire.endpoint`; this module has the names,
the checks and the types that the user sees, and the pickling of connections.

C1  A message that came in part before a timeout or an interrupt is continued by the next recv().
C2  recv(), poll(), send() and wait() notice the end of the other side also while this process still holds a copy of the
    other end, if it gave that end to children by Process, all of them have ended, no other process holds it, and this
    process has never used its copy. The rule in full, and its limits: `wire.peers`.
"""

from __future__ import annotations

import copyreg
import pickle
import sys
from multiprocessing import reduction
from multiprocessing.context import BufferTooShort, get_spawning_popen

from procflow.errors import PicklingError, TruncatedMessage, UnpicklingError
from procflow.wire import peers, pickling
from procflow.wire.endpoint import Endpoint, open_pair
from procflow.wire.pieces import ENCLOSED_LEAST
from procflow.wire.reachable import reachable
from procflow.wire.waiting import Waiting, descriptor, wait_any

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator
    from types import TracebackType
    from typing import Any, Generic, Literal, Never, Protocol, Self, SupportsIndex, overload

    from typing_extensions import Buffer, TypeVar

    # Connection without parameters is Connection[Any, Any], as in multiprocessing.
    SendT = TypeVar("SendT", contravariant=True, default=Any)  # noqa: PLC0105 - the name is public
    RecvT = TypeVar("RecvT", covariant=True, default=Any)  # noqa: PLC0105
    S = TypeVar("S")
    R = TypeVar("R")
    T = TypeVar("T")
    U = TypeVar("U")

    from procflow.wire.arrivals import FutureLike
    from procflow.wire.pieces import Pieces

    class _HasFileno(Protocol):
        def fileno(self) -> int: ...

    class _HasSentinel(Protocol):
        @property
        def sentinel(self) -> int: ...

    Waitable = _HasFileno | _HasSentinel | FutureLike | int
    WaitableT = TypeVar("WaitableT", bound=_HasFileno | int)
    AnyWaitableT = TypeVar("AnyWaitableT", bound=Waitable)
else:
    from procflow.generic import Generic

    def overload(function):
        return function

    SendT = RecvT = S = R = None


__all__ = [
    "Connection",
    "Pipe",
    "close_unpassed_ends",
    "connections_in",
    "note_launch",
    "wait",
]

_packer = pickling.Packer(ENCLOSED_LEAST)
_stdlib_known = False  # whether plain pickle knows multiprocessing's own Connection


class Connection(Generic[SendT, RecvT]):
    """One end of a Pipe: sends and receives objects and bytes, each whole and in order.

    Threads may share it. Processes may share an end for sending messages up to 4 KiB over a one-way pipe; anything else
    needs a Lock, as with multiprocessing.

    `Connection[SendT, RecvT]` says what is sent and what is received; plain `Connection` is `Connection[Any, Any]`.

    Args:
        handle: An open descriptor of a pipe or socket, which the connection owns from now on.
        readable: Whether recv() is allowed.
        writable: Whether send() is allowed.

    Attributes:
        endpoint: What procflow itself knows of the descriptor; not for use outside of it.

    Example:
        >>> one, other = Pipe()
        >>> with one, other:
        ...     one.send({"answer": 42})
        ...     other.recv()
        {'answer': 42}
    """

    __slots__ = ("__weakref__", "endpoint")

    def __init__(self, handle: SupportsIndex, readable: bool = True, writable: bool = True) -> None:
        fd = handle.__index__()
        if fd < 0:
            raise ValueError("invalid handle")
        if not readable and not writable:
            raise ValueError("at least one of `readable` and `writable` must be True")
        self.endpoint = Endpoint(fd, readable, writable)

    # ---- sending

    def send(self, obj: SendT) -> None:
        """Send an object.

        It is pickled; what plain pickle refuses (lambdas, closures) goes by value, and connections and sockets are
        passed on. Blocks while the pipe is full.

        Raises:
            BrokenPipeError: The other end is closed, or all processes that had it have ended.
            OSError: This end is closed, or only for receiving.
        """
        self.endpoint.check_writable()
        if not _stdlib_known and "multiprocessing.connection" in sys.modules:
            _register_stdlib_connections()
        if not self.endpoint.encloses:
            self.endpoint.write(pickling.dumps(obj))
            return
        packed = _packer.pack(obj)
        if isinstance(packed, bytes):
            self.endpoint.write(packed)
        else:
            self._send_pieces(obj, packed)

    def _send_pieces(self, obj: SendT, pieces: Pieces) -> None:
        """Send what is big in a file of its own; as any other message if there is no room for a file."""
        from procflow.start.owned import close
        from procflow.wire.enclosure import enclose

        enclosed = enclose(pieces)
        if enclosed is None:
            self.endpoint.write(pickling.dumps(obj))
            return
        try:
            self.endpoint.write_enclosed(*enclosed)
        finally:
            close(enclosed[0])

    def send_bytes(self, buf: Buffer, offset: int = 0, size: int | None = None) -> None:
        """Send the bytes of a bytes-like object, from `offset` on, `size` of them or all, as one message."""
        self.endpoint.check_writable()
        view = _bytes_of(buf)
        nbytes = len(view)
        if offset < 0:
            raise ValueError("offset is negative")
        if nbytes < offset:
            raise ValueError("buffer length < offset")
        if size is None:
            size = nbytes - offset
        elif size < 0:
            raise ValueError("size is negative")
        elif offset + size > nbytes:
            raise ValueError("buffer length < offset + size")
        self.endpoint.write(view[offset : offset + size])

    # ---- receiving

    def recv(self, timeout: float | None = None) -> RecvT:
        """Receive the next object, waiting up to `timeout` seconds for all of it, or without end.

        Raises:
            EOFError: Nothing is left to receive and the other end is closed, or all processes that had it have ended.
            TimeoutError: It has not come in time; a part that came is kept, and the next call continues it.
            ProtocolError: Garbage came. It is an OSError, and the connection is no longer readable.
            UnpicklingError: A whole message came that is not a pickle. The next one can be received.
        """
        data = self.endpoint.read(None, timeout)
        try:
            obj: RecvT = pickling.loads(data) if isinstance(data, bytes) else data.load()
        except (EOFError, pickle.UnpicklingError) as error:
            raise UnpicklingError(
                f"a message of {len(data)} bytes came whole, but it is no pickle ({error}). "
                "Was it sent by send_bytes()? Then receive it by recv_bytes()."
            ) from error
        return obj

    def recv_bytes(self, maxlength: int | None = None, timeout: float | None = None) -> bytes:
        """Receive the next message as bytes.

        Raises:
            OSError: It is longer than `maxlength`. The connection is no longer readable.
            EOFError: As recv(), and so TimeoutError and ProtocolError.
        """
        self.endpoint.check_readable()
        if maxlength is not None and maxlength < 0:
            raise ValueError("negative maxlength")
        data = self.endpoint.read(maxlength, timeout)
        return data if isinstance(data, bytes) else data.in_line()

    def recv_bytes_into(self, buf: Buffer, offset: int = 0) -> int:
        """Receive the next message into a writable bytes-like object, from `offset` on; return the number of bytes.

        Raises:
            BufferTooShort: It does not fit; the error's `args[0]` is the whole message.
        """
        self.endpoint.check_readable()
        with _bytes_of(buf, writable=True) as view:
            if offset < 0:
                raise ValueError("negative offset")
            if offset > len(view):
                raise ValueError("offset too large")
            with view[offset:] as target:
                got = self.endpoint.read_into(target)
        if isinstance(got, bytes):
            raise BufferTooShort(got)
        return got

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Tell whether there is something to receive: a message, a part of one, or the end of the other side.

        Args:
            timeout: How many seconds to wait for it; None waits without end.
        """
        self.endpoint.check_readable()
        return self.endpoint.wait_readable(timeout)

    def __iter__(self) -> Iterator[RecvT]:
        """Receive until the other end is closed. A message that was cut off in the middle raises."""
        while True:
            try:
                obj = self.recv()
            except TruncatedMessage:
                raise
            except EOFError:
                return
            yield obj

    # ---- in an asyncio coroutine

    async def arecv(self) -> RecvT:
        """Receive the next object, without blocking the asyncio loop; errors are those of `recv`.

        If it is cancelled, as by `asyncio.timeout`, nothing is lost: the next call receives what this one did not.
        Needs a loop that watches descriptors, as asyncio's does but on Windows.
        """
        from procflow.wire.in_asyncio import readable

        woken = False
        while True:
            try:
                return self.recv(timeout=0)
            except TimeoutError:
                pass
            if woken and not self.endpoint.begun:  # another thread receives, or there was only news of the other end
                await _nap()
            await readable(self.endpoint.waiting())
            woken = True

    async def asend(self, obj: SendT) -> None:
        """Send an object from a thread, without blocking the asyncio loop. If it is cancelled, it is sent all the same.

        Raises:
            BrokenPipeError: As `send`, and so OSError.
        """
        from asyncio import to_thread

        await to_thread(self.send, obj)

    async def __aiter__(self) -> AsyncIterator[RecvT]:
        """Receive until the other end is closed, without blocking the asyncio loop."""
        while True:
            try:
                obj = await self.arecv()
            except TruncatedMessage:
                raise
            except EOFError:
                return
            yield obj

    # ---- state

    def fileno(self) -> int:
        """Return the descriptor. From then on, this process counts as a user of this end (see `wire.peers`)."""
        self.endpoint.own.used = True
        return self.endpoint.number()

    def close(self) -> None:
        """Close the connection. Idempotent. A call that another thread has on it ends first, as it will."""
        self.endpoint.close()

    @property
    def closed(self) -> bool:
        """Whether the connection is closed."""
        return self.endpoint.handle is None

    @property
    def readable(self) -> bool:
        """Whether the connection is for receiving."""
        return self.endpoint.readable

    @property
    def writable(self) -> bool:
        """Whether the connection is for sending."""
        return self.endpoint.writable

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        endpoint = getattr(self, "endpoint", None)  # absent if __init__ refused
        if endpoint is not None:
            endpoint.close()

    def __repr__(self) -> str:
        end = self.endpoint
        ways = [word for word, true in (("readable", end.readable), ("writable", end.writable)) if true]
        return (
            f"<Connection {'closed' if end.handle is None else f'fd={end.handle}'}, {' and '.join(ways) or 'broken'}>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        if get_spawning_popen() is None:
            raise PicklingError(
                "a Connection can't be pickled by itself, since a descriptor means nothing elsewhere: pass it as an "
                "argument of a Process, or send it over another Connection"
            )
        return _reduce_connection(self)


def _bytes_of(buf: Buffer, *, writable: bool = False) -> memoryview:
    """Return a view of single bytes in one dimension, whatever the buffer's items and shape are."""
    with memoryview(buf) as view:
        if writable and view.readonly:
            raise TypeError("recv_bytes_into() needs a writable buffer")
        return view.cast("B") if view.nbytes else memoryview(bytearray())  # a shape with a zero in it can't be cast


class _PipeMaker(Generic[S, R]):
    """What `Pipe` is: callable, and subscriptable with the types of the messages."""

    __slots__ = ()

    @overload
    def __getitem__(self, types: tuple[type[T], type[U]]) -> _PipeMaker[T, U]: ...
    @overload
    def __getitem__(self, types: type[T]) -> _PipeMaker[T, T]: ...  # noqa: F811
    def __getitem__(self, types: object) -> _PipeMaker[Any, Any]:  # noqa: F811
        """Return Pipe for messages of these types: `Pipe[Sent, Received]()`, as the first end sees them."""
        return self

    @overload
    def __call__(self, duplex: Literal[True] = True) -> tuple[Connection[S, R], Connection[R, S]]: ...
    @overload
    def __call__(self, duplex: Literal[False]) -> tuple[Connection[Never, R], Connection[R, Never]]: ...  # noqa: F811
    @overload
    def __call__(self, duplex: bool) -> tuple[Connection[Any, Any], Connection[Any, Any]]: ...  # noqa: F811
    def __call__(self, duplex: bool = True) -> tuple[Connection[Any, Any], Connection[Any, Any]]:  # noqa: F811
        """Make a pipe and return its two ends.

        Args:
            duplex: If true, both ends send and receive. If false, the first only receives and the second only sends.
        """
        first, second = open_pair(duplex)
        return _connection(first), _connection(second)

    def __repr__(self) -> str:
        return "procflow.Pipe"

    def __reduce__(self) -> str:
        return "Pipe"


Pipe: _PipeMaker[Any, Any] = _PipeMaker()


async def _nap() -> None:
    from asyncio import sleep

    await sleep(0.001)


def _connection(endpoint: Endpoint) -> Connection[Any, Any]:
    connection: Connection[Any, Any] = Connection.__new__(Connection)
    connection.endpoint = endpoint
    return connection


# The first says it all, and pyright needs no other. mypy takes the items of a mixed list for plain objects, which the
# first refuses; it goes on to the next, where the list has a type to be. So to each of them the others seem useless.
@overload
def wait(  # pyright: ignore[reportOverlappingOverload]  # noqa: D103
    object_list: Iterable[WaitableT], timeout: float | None = None
) -> list[WaitableT]: ...
@overload
def wait(  # type: ignore[overload-cannot-match]  # pyright: ignore[reportOverlappingOverload]  # noqa: D103, F811
    object_list: Iterable[Connection[Any, Any] | int], timeout: float | None = None
) -> list[Connection[Any, Any] | int]: ...
@overload
def wait(  # type: ignore[overload-cannot-match]  # pyright: ignore[reportOverlappingOverload]  # noqa: D103, F811
    object_list: Iterable[_HasFileno | int], timeout: float | None = None
) -> list[_HasFileno | int]: ...
@overload
def wait(  # pyright: ignore[reportOverlappingOverload]  # noqa: D103, F811
    object_list: Iterable[AnyWaitableT], timeout: float | None = None
) -> list[AnyWaitableT]: ...
@overload
def wait(  # type: ignore[overload-cannot-match]  # pyright: ignore[reportOverlappingOverload]  # noqa: D103, F811
    object_list: Iterable[Waitable], timeout: float | None = None
) -> list[Waitable]: ...
def wait(object_list: Iterable[Any], timeout: float | None = None) -> list[Any]:  # noqa: F811
    """Wait until an object is ready, and return those that are, in the order given; [] after `timeout` seconds.

    Args:
        object_list: Connections, sockets, descriptors and whatever has a fileno(); processes, which are ready when they
            have ended; and futures, of a Pool or of `concurrent.futures`, which are ready when they are done.
        timeout: In seconds; None waits without end, a negative one not at all.
    """
    objects: list[Any] = list(object_list)
    if sys.platform == "win32":
        from procflow.wire.windows import wait_native

        ready = wait_native([_native(obj) for obj in objects], timeout)
        return [obj for obj, is_ready in zip(objects, ready, strict=True) if is_ready]
    futures: list[Any] = [obj for obj in objects if hasattr(obj, "add_done_callback")]
    if futures:
        return _wait_with_futures(objects, futures, timeout)
    return wait_any([(obj, _waiting(obj)) for obj in objects], timeout)


def _wait_with_futures(objects: list[T], futures: list[Any], timeout: float | None) -> list[T]:
    from procflow.wire.arrivals import Arrivals

    others = [obj for obj in objects if not hasattr(obj, "add_done_callback")]
    with Arrivals(futures) as arrivals:
        waitings: list[tuple[Any, Waiting]] = [(obj, _waiting(obj)) for obj in others]
        ready = {id(obj) for obj in wait_any([*waitings, (arrivals, Waiting(arrivals.fd))], timeout)}
    ready |= {id(future) for future in futures if future.done()}
    return [obj for obj in objects if id(obj) in ready]


def _native(obj: object) -> object:
    return obj.endpoint.native() if isinstance(obj, Connection) else getattr(obj, "sentinel", obj)


def _waiting(obj: object) -> Waiting:
    if isinstance(obj, Connection):
        return obj.endpoint.waiting()
    known: Any = obj
    # The class is asked, as a process that was not started raises an error.
    if not hasattr(known, "fileno") and hasattr(known.__class__, "sentinel"):
        return Waiting(known.sentinel)
    return Waiting(descriptor(known))


# ---- for the launcher of processes


def note_launch(popen: peers.Launched, connections: Iterable[Connection[Any, Any]]) -> None:
    """Note that a child was launched which was given these connections, so that their other ends see its end (C2).

    To be called in the parent, after the launch, under every start method; twice does no harm. Without connections it
    tells that a forked child was given none, for a child that multiprocessing.active_children() does not list.

    Args:
        popen: Has `sentinel`, `pid`, and a `returncode` that is None while it runs, if it has one at all.
        connections: What `connections_in` found in what the child was given.
    """
    peers.remember_launched(popen)
    for connection in connections:
        connection.endpoint.give(popen)


def connections_in(given: object, *, inherited: bool = False) -> list[Connection[Any, Any]]:
    """Find the Connections in what a child is given: the `__dict__` of a Process, or its target, args and kwargs.

    Looks into containers, partial functions, bound methods, closures and attributes.

    Args:
        given: What the child is given.
        inherited: The child is forked, so that the global variables that functions name are given, too.
    """
    return list(reachable(given, Connection, inherited=inherited))


def close_unpassed_ends(given: Iterable[Connection[Any, Any]]) -> None:
    """In a forked child: close the other end of each connection that it was given, unless it was given that, too.

    Otherwise the child itself would hide the end of its parent: it inherited the parent's end of the pipe.
    """
    passed = [connection.endpoint for connection in given]
    for endpoint in passed:
        partner = endpoint.partner
        if partner is not None and partner not in passed:
            partner.close()


# ---- pickling


def _reduce_connection(connection: Connection[Any, Any]) -> tuple[Any, ...]:
    endpoint = connection.endpoint
    handle = endpoint.number()
    if endpoint.begun:
        raise PicklingError("a part of a message has come: receive the rest before you pass the connection on")
    popen = get_spawning_popen()
    if popen is None:
        endpoint.own.used = True  # from here it may go anywhere
    else:
        endpoint.give(popen)
    if sys.platform == "win32":
        from procflow.wire.windows import duplicate

        return _rebuild_connection, (duplicate(endpoint.native()), endpoint.readable, endpoint.writable, False)
    return _rebuild_connection, (
        reduction.DupFd(handle), endpoint.readable, endpoint.writable, endpoint.encloses
    )  # fmt: skip


def _rebuild_connection(duplicate: Any, readable: bool, writable: bool, encloses: bool) -> Connection[Any, Any]:
    connection: Connection[Any, Any] = Connection(duplicate.detach(), readable, writable)
    connection.endpoint.encloses = encloses
    return connection


def _register_stdlib_connections() -> None:
    """Let plain pickle pass multiprocessing's own Connection on; by itself it would copy the number of a descriptor."""
    global _stdlib_known  # it only ever becomes true
    from multiprocessing import connection

    copyreg.pickle(connection.Connection, vars(connection)["reduce_connection"])
    _stdlib_known = True


reduction.register(Connection, _reduce_connection)
