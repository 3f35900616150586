"""How many threads the numerical libraries of a worker may use: told by its environment, before they are imported.

Libraries that were loaded before the worker was forked have read theirs: threadpoolctl tells those.
"""

from __future__ import annotations

import sys

__all__ = ["check_limitable", "limit", "variables"]

VARIABLES = (
    "BLIS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def variables(threads: int) -> dict[str, str]:
    """Return what is to be in the environment of a worker."""
    return dict.fromkeys(VARIABLES, str(threads))


def limit(threads: int) -> None:
    """In a worker: limit the libraries that were loaded before it had this environment, if there are any."""
    if not _has_native():
        return
    try:
        from threadpoolctl import threadpool_limits
    except ModuleNotFoundError as missing:
        raise _refusal("native libraries were loaded before this worker was forked") from missing
    threadpool_limits(threads)


def check_limitable(*, forks: bool, preloads: bool) -> None:
    """Before there are workers: refuse a limit that they could not keep.

    Args:
        forks: They are forks of this process.
        preloads: They are forks of a process that has imported modules of the caller's choice.
    """
    if (forks and _has_native()) or preloads:
        from importlib.util import find_spec

        if find_spec("threadpoolctl") is None:
            where = "this process has loaded native libraries, and forks of it" if forks else "workers with `preload`"
            raise _refusal(f"{where} have libraries that were loaded before their environment was set")


def _refusal(why: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f"threads_per_worker needs threadpoolctl here, as {why}: pip install 'procflow[threads]'", name="threadpoolctl"
    )


def _has_native() -> bool:
    """Whether native modules are imported that are not the standard library's, all of which are in one folder."""
    files = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
    return any(file.endswith((".so", ".dylib", ".pyd")) and "lib-dynload" not in file for file in files)
