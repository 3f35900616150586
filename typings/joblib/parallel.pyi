from collections.abc import Callable
from typing import Any

class ParallelBackendBase:
    MAX_NUM_THREADS_VARS: list[str]
    nesting_level: int | None
    inner_max_num_threads: int | None
    backend_kwargs: dict[str, Any]
    parallel: Parallel
    def __init__(
        self, nesting_level: int | None = ..., inner_max_num_threads: int | None = ..., **backend_kwargs: Any
    ) -> None: ...
    def configure(self, n_jobs: int = ..., parallel: Parallel | None = ..., **backend_kwargs: Any) -> int: ...

class AutoBatchingMixin:
    def reset_batch_stats(self) -> None: ...

class SequentialBackend(ParallelBackendBase): ...

class FallbackToBackend(Exception):
    def __init__(self, backend: ParallelBackendBase) -> None: ...

class Parallel:
    n_jobs: int
    _backend_kwargs: dict[str, Any]

def register_parallel_backend(
    name: str, factory: Callable[..., ParallelBackendBase], make_default: bool = ...
) -> None: ...
