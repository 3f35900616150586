"""The peers, each behind the same few methods, with the start method that serves it best.

A method that a peer does not have is one that it does not override; `can` tells. The pool is opened at its first use,
in the process that measures. Nothing here retries, batches or converts: what is measured is the peer.
"""

from __future__ import annotations

import concurrent.futures
import importlib.util
import multiprocessing
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

Function = Callable[[Any], Any]


class Peer:
    name = ""
    module = ""  # what must be there for it
    most_workers = 1000

    def __init__(self, workers: int) -> None:
        self.workers = workers

    @classmethod
    def installed(cls) -> bool:
        return importlib.util.find_spec(cls.module) is not None

    @classmethod
    def can(cls, method: str) -> bool:
        if method == "call" and cls.can("submit"):
            return True
        return getattr(cls, method) is not getattr(Peer, method)

    def open(self) -> Any:
        raise NotImplementedError

    @cached_property
    def pool(self) -> Any:
        """Opened by the first that asks; who measures with threads asks before they start."""
        return self.open()

    def call(self, fn: Function, item: Any) -> Any:
        """There and back, as its users write it."""
        return self.result(self.submit(fn, item))

    def apply(self, fn: Function, item: Any) -> Any:
        raise NotImplementedError

    def submit(self, fn: Function, item: Any) -> Any:
        raise NotImplementedError

    def result(self, handle: Any) -> Any:
        return handle.result()

    def done(self, handle: Any) -> bool:
        return bool(handle.done())

    def awaitable(self, fn: Function, item: Any) -> Awaitable[Any]:
        raise NotImplementedError

    def map(self, fn: Function, items: Sequence[Any], chunksize: int | None) -> list[Any]:
        raise NotImplementedError

    def start_map(self, fn: Function, items: Sequence[Any]) -> Callable[[], bool]:
        """Begin a map without waiting, and return what tells whether it is done."""
        raise NotImplementedError

    def stream(self, fn: Function, items: Iterable[Any], chunksize: int | None) -> Iterator[Any]:
        """Yield the results as they come."""
        raise NotImplementedError

    def pipe(self, duplex: bool = True) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        self.pool.terminate()
        self.pool.join()


def given(name: str, value: int | None) -> dict[str, int]:
    """Leave an argument out that is None: the peer's own default is the question then."""
    return {} if value is None else {name: value}


class Procflow(Peer):
    name = module = "procflow"

    def open(self) -> Any:
        import procflow

        return procflow.Pool(self.workers)

    def apply(self, fn: Function, item: Any) -> Any:
        return self.pool.apply(fn, (item,))

    def submit(self, fn: Function, item: Any) -> Any:
        return self.pool.submit(fn, item)

    def awaitable(self, fn: Function, item: Any) -> Awaitable[Any]:
        return self.pool.submit(fn, item)

    def map(self, fn: Function, items: Sequence[Any], chunksize: int | None) -> list[Any]:
        return self.pool.map(fn, items, chunksize)

    def start_map(self, fn: Function, items: Sequence[Any]) -> Callable[[], bool]:
        return self.pool.map_async(fn, items).done

    def stream(self, fn: Function, items: Iterable[Any], chunksize: int | None) -> Iterator[Any]:
        return self.pool.imap_unordered(fn, items, chunksize)

    def pipe(self, duplex: bool = True) -> Any:
        import procflow

        return procflow.Pipe(duplex)


class AsyncResults(Peer):
    """What has `apply_async` as multiprocessing has it."""

    def apply(self, fn: Function, item: Any) -> Any:
        return self.pool.apply(fn, (item,))

    def submit(self, fn: Function, item: Any) -> Any:
        return self.pool.apply_async(fn, (item,))

    def result(self, handle: Any) -> Any:
        return handle.get()

    def done(self, handle: Any) -> bool:
        return bool(handle.ready())


class Multiprocessing(AsyncResults):
    name, module = "multiprocessing.Pool", "multiprocessing"

    def open(self) -> Any:
        return multiprocessing.get_context("fork").Pool(self.workers)

    def map(self, fn: Function, items: Sequence[Any], chunksize: int | None) -> list[Any]:
        return self.pool.map(fn, items, chunksize)

    def start_map(self, fn: Function, items: Sequence[Any]) -> Callable[[], bool]:
        return self.pool.map_async(fn, items).ready

    def stream(self, fn: Function, items: Iterable[Any], chunksize: int | None) -> Iterator[Any]:
        return self.pool.imap_unordered(fn, items, **given("chunksize", chunksize))

    def pipe(self, duplex: bool = True) -> Any:
        return multiprocessing.Pipe(duplex)


class Billiard(Multiprocessing):
    name = module = "billiard"

    def open(self) -> Any:
        import billiard

        return billiard.get_context("fork").Pool(self.workers)

    def pipe(self, duplex: bool = True) -> Any:
        import billiard

        return billiard.Pipe(duplex)


class Executor(Peer):
    """ProcessPoolExecutor; what holds for each concurrent.futures executor."""

    name, module = "ProcessPoolExecutor", "concurrent.futures"

    def open(self) -> Any:
        return concurrent.futures.ProcessPoolExecutor(self.workers, multiprocessing.get_context("fork"))

    def submit(self, fn: Function, item: Any) -> Any:
        return self.pool.submit(fn, item)

    def awaitable(self, fn: Function, item: Any) -> Awaitable[Any]:
        import asyncio

        return asyncio.get_running_loop().run_in_executor(self.pool, fn, item)

    def map(self, fn: Function, items: Sequence[Any], chunksize: int | None) -> list[Any]:
        return list(self.pool.map(fn, items, **given("chunksize", chunksize)))

    def start_map(self, fn: Function, items: Sequence[Any]) -> Callable[[], bool]:
        handles = [self.pool.submit(fn, item) for item in items]

        def finished() -> bool:
            while handles and handles[-1].done():
                handles.pop()
            return not handles

        return finished

    def stream(self, fn: Function, items: Iterable[Any], chunksize: int | None) -> Iterator[Any]:
        return self.pool.map(fn, items, **given("chunksize", chunksize))

    def close(self) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)


class Loky(Executor):
    name = module = "loky"

    def open(self) -> Any:
        import loky

        return loky.ProcessPoolExecutor(self.workers)

    def close(self) -> None:
        self.pool.shutdown(wait=True, kill_workers=True)


class Joblib(Peer):
    name = module = "joblib"

    def open(self) -> Any:
        import joblib

        # An opened Parallel keeps its workers from call to call, as a pool does.
        return joblib.Parallel(self.workers).__enter__()

    def _parallel(self, chunksize: int | None, **more: Any) -> Any:
        import joblib

        return joblib.Parallel(self.workers, **given("batch_size", chunksize), **more)

    def map(self, fn: Function, items: Sequence[Any], chunksize: int | None) -> list[Any]:
        import joblib

        task = joblib.delayed(fn)
        return list(self._parallel(chunksize)(task(item) for item in items))

    def stream(self, fn: Function, items: Iterable[Any], chunksize: int | None) -> Iterator[Any]:
        import joblib

        task = joblib.delayed(fn)
        return self._parallel(chunksize, return_as="generator_unordered")(task(item) for item in items)

    def close(self) -> None:
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True, kill_workers=True)


class Pebble(Peer):
    name = module = "pebble"

    def open(self) -> Any:
        import pebble

        return pebble.ProcessPool(self.workers, context=multiprocessing.get_context("fork"))

    def submit(self, fn: Function, item: Any) -> Any:
        return self.pool.schedule(fn, (item,))

    def awaitable(self, fn: Function, item: Any) -> Awaitable[Any]:
        import asyncio

        return asyncio.wrap_future(self.submit(fn, item))

    def map(self, fn: Function, items: Sequence[Any], chunksize: int | None) -> list[Any]:
        return list(self.pool.map(fn, items, **given("chunksize", chunksize)).result())

    def close(self) -> None:
        self.pool.stop()
        self.pool.join()


class Mpire(AsyncResults):
    name = module = "mpire"

    def open(self) -> Any:
        import mpire

        return mpire.WorkerPool(self.workers, start_method="fork", keep_alive=True)

    def map(self, fn: Function, items: Sequence[Any], chunksize: int | None) -> list[Any]:
        return self.pool.map(fn, items, chunk_size=chunksize)

    def stream(self, fn: Function, items: Iterable[Any], chunksize: int | None) -> Iterator[Any]:
        return self.pool.imap_unordered(fn, items, chunk_size=chunksize)

    def close(self) -> None:
        self.pool.terminate()


class Ray(Multiprocessing):
    """Ray's own drop-in for multiprocessing.Pool."""

    name = module = "ray"
    most_workers = 8  # each is a whole interpreter of 100 MB and a second to start

    def open(self) -> Any:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        import ray
        from ray.util.multiprocessing import Pool

        ray.init(num_cpus=self.workers, include_dashboard=False, log_to_driver=False, configure_logging=False)
        return Pool(self.workers)

    pipe = Peer.pipe

    def close(self) -> None:
        import ray

        ray.shutdown()


class Dask(Peer):
    name, module = "dask", "distributed"
    most_workers = 8

    def open(self) -> Any:
        import distributed

        cluster = distributed.LocalCluster(
            n_workers=self.workers, threads_per_worker=1, dashboard_address=None, silence_logs=50
        )
        return distributed.Client(cluster)

    def submit(self, fn: Function, item: Any) -> Any:
        return self.pool.submit(fn, item, pure=False)

    def map(self, fn: Function, items: Sequence[Any], chunksize: int | None) -> list[Any]:
        if chunksize not in (None, 1):
            raise ValueError("a task of Dask is one item")
        return self.pool.gather(self.pool.map(fn, items, pure=False))

    def close(self) -> None:
        cluster = self.pool.cluster
        self.pool.close()
        cluster.close()


class BarePipes(Peer):
    """No pool: a hundred bytes to another Python process and back, by os.write and os.read. The floor of a call."""

    name, module = "two bare pipes", "os"

    def open(self) -> Any:
        tasks, task_end = os.pipe()
        result_end, results = os.pipe()
        if os.fork() == 0:
            os.close(task_end)
            while data := os.read(tasks, 4096):
                os.write(results, data)
            os._exit(0)
        os.close(tasks)
        os.close(results)
        return task_end, result_end

    def call(self, fn: Function, item: Any) -> Any:
        writer, reader = self.pool
        os.write(writer, b"x" * 100)
        return os.read(reader, 4096)

    def close(self) -> None:
        for end in self.pool:
            os.close(end)
        os.wait()


ALL: list[type[Peer]] = [
    Procflow, Multiprocessing, Executor, Loky, Joblib, Pebble, Mpire, Billiard, Ray, Dask, BarePipes
]  # fmt: skip
BY_NAME = {peer.name: peer for peer in ALL}
