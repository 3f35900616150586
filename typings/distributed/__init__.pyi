from collections.abc import Awaitable, Callable, Generator, Iterable
from typing import Any

class Security: ...

class Rpc:
    address: str

class Future(Awaitable[Any]):
    def __await__(self) -> Generator[object, None, Any]: ...
    def release(self) -> None: ...

class Client:
    """One that is asynchronous."""

    status: str
    scheduler: Rpc
    security: Security
    def __init__(
        self,
        address: object = ...,
        *,
        security: Security | None = ...,
        timeout: float | None = ...,
        set_as_default: bool = ...,
        name: str | None = ...,
        asynchronous: bool = ...,
    ) -> None: ...
    def map(
        self,
        func: Callable[..., Any],
        *iterables: Iterable[Any],
        key: list[str],
        workers: list[str] | None = ...,
        pure: bool = ...,
        **kwargs: Any,
    ) -> list[Future]: ...
    def nthreads(self) -> Awaitable[dict[str, int]]: ...
    def run(
        self, function: Callable[..., object], *, workers: list[str], on_error: str
    ) -> Awaitable[dict[str, object]]: ...
    def subscribe_topic(self, topic: str, handler: Callable[[tuple[float, dict[str, object]]], object]) -> None: ...
    def unsubscribe_topic(self, topic: str) -> None: ...
    def close(self) -> Awaitable[None]: ...
    def __await__(self) -> Generator[object, None, Client]: ...
