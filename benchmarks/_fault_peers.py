"""The pools whose faults are compared, each behind the few methods that the scenarios need.

A method that a library does not offer raises `NotOfferedError`. Nothing here mends anything: the library is judged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import _peers
from _peers import Peer

SOON = 8.0  # seconds: what has not come by then never comes


class NotOfferedError(Exception):
    """The library has nothing for this."""


class NeverCameError(Exception):
    """A result, or the end of a call, that was waited for in vain."""


class Pool:
    """A peer's pool of two workers, opened at once."""

    def __init__(self, peer: Peer, initializer: Callable[[], None] | None = None) -> None:
        self.peer = peer
        self.name = peer.name
        self.initializer = initializer
        if initializer is not None:
            vars(peer)["pool"] = self.open_with(initializer)
        self.pool = peer.pool

    def open_with(self, initializer: Callable[[], None]) -> Any:
        raise NotImplementedError

    def submit(self, fn: Callable[..., Any], item: Any = None) -> Any:
        return self.peer.submit(fn, item)

    def wait(self, handle: Any, seconds: float = SOON) -> None:
        """Wait until the handle is done, as its library tells."""
        deadline = time.monotonic() + seconds
        while not self.peer.done(handle):
            if time.monotonic() >= deadline:
                raise NeverCameError
            time.sleep(0.005)

    def result(self, handle: Any, seconds: float = SOON) -> Any:
        """The task's result, or what it raised."""
        self.wait(handle, seconds)
        return self.peer.result(handle)

    def map(self, fn: Callable[..., Any], items: list[Any]) -> list[Any]:
        return self.peer.map(fn, items, 1)

    def stream(self, fn: Callable[..., Any], items: Iterable[Any]) -> Iterator[Any]:
        if not self.peer.can("stream"):
            raise NotOfferedError
        return self.peer.stream(fn, items, None)

    def submit_limited(self, fn: Callable[..., Any], item: Any, seconds: float) -> Any:
        """A task that may run for so long."""
        raise NotOfferedError

    def submit_retried(self, fn: Callable[..., Any], item: Any) -> Any:
        """A task that may begin again when its worker has died."""
        raise NotOfferedError

    def cancel(self, handle: Any) -> bool:
        """Take back what has not begun."""
        raise NotOfferedError

    def kill(self, handle: Any) -> None:
        """End a task that runs."""
        raise NotOfferedError

    def submit_with_callback(self, fn: Callable[..., Any], item: Any, callback: Callable[[Any], None]) -> Any:
        raise NotOfferedError

    def pids(self) -> list[int]:
        """The workers, as the operating system knows them."""
        import psutil

        return [child.pid for child in psutil.Process().children(recursive=True) if _is_worker(child)]

    def close(self) -> None:
        """Let what was accepted be done, and end, as its users do."""
        self.peer.close()


def _is_worker(process: Any) -> bool:
    """Not a fork server, resource tracker or manager: those are no workers."""
    text = " ".join(process.cmdline())
    return not any(word in text for word in ("resource_tracker", "from procflow.start.forkserver", "semaphore_tracker"))


class WithCallbacks(Pool):
    """Futures as those of `concurrent.futures`."""

    def submit_with_callback(self, fn: Callable[..., Any], item: Any, callback: Callable[[Any], None]) -> Any:
        handle = self.submit(fn, item)
        handle.add_done_callback(callback)
        return handle

    def cancel(self, handle: Any) -> bool:
        return bool(handle.cancel())


class Procflow(WithCallbacks):
    def open_with(self, initializer: Callable[[], None]) -> Any:
        import procflow

        return procflow.Pool(2, initializer)

    def submit_limited(self, fn: Callable[..., Any], item: Any, seconds: float) -> Any:
        return self.pool.options(timeout=seconds).submit(fn, item)

    def submit_retried(self, fn: Callable[..., Any], item: Any) -> Any:
        import procflow

        return self.pool.options(retries=2, retry_on=procflow.WorkerDied).submit(fn, item)

    def kill(self, handle: Any) -> None:
        handle.kill()

    def close(self) -> None:
        self.pool.close()
        self.pool.join()


class Multiprocessing(Pool):
    def open_with(self, initializer: Callable[[], None]) -> Any:
        import multiprocessing

        return multiprocessing.get_context("fork").Pool(2, initializer)

    def submit_with_callback(self, fn: Callable[..., Any], item: Any, callback: Callable[[Any], None]) -> Any:
        return self.pool.apply_async(fn, (item,), callback=callback)

    def close(self) -> None:
        self.pool.close()
        self.pool.join()


class Executor(WithCallbacks):
    def open_with(self, initializer: Callable[[], None]) -> Any:
        import concurrent.futures

        return concurrent.futures.ProcessPoolExecutor(2, initializer=initializer)

    def close(self) -> None:
        self.pool.shutdown()


class Loky(Executor):
    def open_with(self, initializer: Callable[[], None]) -> Any:
        import loky

        return loky.ProcessPoolExecutor(2, initializer=initializer)


class Pebble(WithCallbacks):
    def open_with(self, initializer: Callable[[], None]) -> Any:
        import pebble

        return pebble.ProcessPool(2, initializer=initializer)

    def submit_limited(self, fn: Callable[..., Any], item: Any, seconds: float) -> Any:
        return self.pool.schedule(fn, (item,), timeout=seconds)

    def kill(self, handle: Any) -> None:
        handle.cancel()

    def close(self) -> None:
        self.pool.close()
        self.pool.join()


class Mpire(Pool):
    def open_with(self, initializer: Callable[[], None]) -> Any:
        import mpire

        return mpire.WorkerPool(2, start_method="fork", keep_alive=True)

    def submit(self, fn: Callable[..., Any], item: Any = None) -> Any:
        return self.pool.apply_async(fn, (item,), worker_init=self.initializer)

    def submit_limited(self, fn: Callable[..., Any], item: Any, seconds: float) -> Any:
        return self.pool.apply_async(fn, (item,), task_timeout=seconds)

    def submit_with_callback(self, fn: Callable[..., Any], item: Any, callback: Callable[[Any], None]) -> Any:
        return self.pool.apply_async(fn, (item,), callback=callback)

    def close(self) -> None:
        self.pool.stop_and_join()


POOLS: dict[str, tuple[type[Peer], type[Pool], str]] = {  # the third: its package, for the version
    "procflow": (_peers.Procflow, Procflow, "procflow"),
    "multiprocessing.Pool": (_peers.Multiprocessing, Multiprocessing, ""),
    "ProcessPoolExecutor": (_peers.Executor, Executor, ""),
    "loky": (_peers.Loky, Loky, "loky"),
    "pebble": (_peers.Pebble, Pebble, "Pebble"),
    "mpire": (_peers.Mpire, Mpire, "mpire"),
}
