"""What this machine offers, as data. Nothing here raises: what can't be found out is None, what is bad is a remark."""

from __future__ import annotations

import os
import platform
import select
import sys
from dataclasses import dataclass
from importlib import metadata

import procflow
from procflow import context, cpu
from procflow.portable import asked_for
from procflow.start.spool import anonymous_file
from procflow.wire import blocks, channel

__all__ = ["Cpus", "Kernel", "Limits", "Machine", "Memory", "examine"]

BESIDE = ("cloudpickle", "distributed", "joblib", "numpy", "psutil", "ray", "rich", "threadpoolctl", "tqdm")
FDS_OF_A_WORKER = 8  # descriptors that a pool holds for one; counted in tests/integration/test_doctor.py
FEW_FDS = 256


@dataclass(frozen=True, slots=True)
class Cpus:
    """How many CPUs a pool takes, and what says so."""

    usable: int | None  # what `cpu_count()` gives; None if what the user set is no number
    machine: int | None
    affinity: int
    quota: int | None  # of the control groups, rounded up; None: no quota
    override: str | None  # `-X cpu_count` or `PYTHON_CPU_COUNT`, as it was given
    why: str


@dataclass(frozen=True, slots=True)
class Memory:
    """Where big data goes."""

    physical: int  # bytes of the machine
    kind: str  # "memfd", "temporary file", or why there is none
    mapped: bool  # whether arrays stay where they arrive; else they are copied


@dataclass(frozen=True, slots=True)
class Limits:
    """setrlimit(2): (soft, hard), None for unlimited; the whole is None where the system has no such limit."""

    open_files: tuple[int | None, int | None] | None  # RLIMIT_NOFILE
    processes: tuple[int | None, int | None] | None  # RLIMIT_NPROC
    address_space: tuple[int | None, int | None] | None  # RLIMIT_AS, bytes


@dataclass(frozen=True, slots=True)
class Kernel:
    """Which of the calls that make procflow fast and sure are there, tried and not guessed."""

    pidfd: bool
    epoll: bool
    packet_pipes: bool


@dataclass(frozen=True, slots=True)
class Machine:
    """All of it."""

    procflow: str
    python: str
    implementation: str
    executable: str
    system: str
    start_methods: tuple[str, ...]  # the default one first
    cpus: Cpus
    memory: Memory
    limits: Limits
    kernel: Kernel
    beside: dict[str, str | None]  # versions of what it can use; None: not installed
    portable: bool  # PROCFLOW_PORTABLE: the plain ways were asked for
    remarks: tuple[str, ...]  # what a user might want to change


def examine() -> Machine:
    """Look at everything."""
    portable = asked_for()
    cpus, memory, limits, kernel = _cpus(), _memory(portable), _limits(), _kernel(portable)
    return Machine(
        procflow=procflow.__version__,
        python=platform.python_version(),
        implementation=platform.python_implementation(),
        executable=sys.executable,
        system=platform.platform(),
        start_methods=tuple(context.get_all_start_methods()),
        cpus=cpus,
        memory=memory,
        limits=limits,
        kernel=kernel,
        beside={name: _version(name) for name in BESIDE},
        portable=portable,
        remarks=tuple(_remarks(cpus, memory, limits, kernel, portable)),
    )


def _cpus() -> Cpus:
    machine, affinity, quota = os.cpu_count(), cpu.affinity(), cpu.quota_limit()
    name, given = _override()
    try:
        usable = cpu.cpu_count()
    except ValueError as error:
        return Cpus(None, machine, affinity, quota, given, str(error))
    if name and given != "default":
        why = f"{name} says so"
    elif quota is not None and quota < affinity:
        why = f"the CPU quota of its control group; the affinity mask allows {affinity}"
    elif machine is not None and affinity < machine:
        why = f"the affinity mask; the machine has {machine}"
    else:
        why = "all that the machine has; no affinity mask, quota or setting allows fewer"
    return Cpus(usable, machine, affinity, quota, given, why)


def _override() -> tuple[str, str | None]:
    """Return where the number was set, and as what; as `cpu.override`, which gives the number."""
    option = sys._xoptions.get("cpu_count")  # pyright: ignore[reportPrivateUsage] # documented
    if option is not None:
        return "-X cpu_count", "" if option is True else str(option)
    variable = "" if sys.flags.ignore_environment else os.environ.get("PYTHON_CPU_COUNT", "")
    return ("PYTHON_CPU_COUNT", variable) if variable else ("", None)


def _memory(portable: bool) -> Memory:
    try:
        fd = anonymous_file("procflow-doctor", portable=portable)
    except OSError as error:
        return Memory(blocks.MEMORY, f"none: {error}", mapped=False)
    kind = "memfd" if "memfd:" in _target(fd) else "temporary file"
    os.close(fd)
    return Memory(blocks.MEMORY, kind, blocks.can_map() and not portable)


def _target(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def _limits() -> Limits:
    try:
        import resource
    except ImportError:  # Windows
        return Limits(None, None, None)

    def limit(name: str) -> tuple[int | None, int | None] | None:
        if not hasattr(resource, name):
            return None
        soft, hard = resource.getrlimit(getattr(resource, name))
        return tuple(None if value == resource.RLIM_INFINITY else value for value in (soft, hard))  # type: ignore[return-value]

    return Limits(limit("RLIMIT_NOFILE"), limit("RLIMIT_NPROC"), limit("RLIMIT_AS"))


def _kernel(portable: bool) -> Kernel:
    try:
        os.close(os.pidfd_open(os.getpid()))
        pidfd = True
    except (AttributeError, OSError):  # another system, an old kernel, or a sandbox that forbids the call
        pidfd = False
    try:
        tried = channel.open_channel(portable=portable)
    except OSError:  # no descriptor is free
        packet_pipes = False
    else:
        packet_pipes = tried.takes_back
        os.close(tried.reader)
        tried.close()
    return Kernel(pidfd, hasattr(select, "epoll"), packet_pipes)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _remarks(cpus: Cpus, memory: Memory, limits: Limits, kernel: Kernel, portable: bool) -> list[str]:
    found: list[str] = []
    if cpus.usable is None:
        found.append(f"{cpus.why}. Pool() without a number raises this error.")
    if portable:
        found.append("PROCFLOW_PORTABLE is set: the slower ways, plain pipes and temporary files, are used on purpose.")
    elif sys.platform == "linux":
        if not kernel.packet_pipes:
            found.append("No packet pipes, probably as /proc is not mounted: what a worker holds can't be taken back.")
        if not kernel.pidfd:
            found.append(
                "pidfd_open(2) is refused, by an old kernel or a sandbox. No process can be watched, or starts."
            )
        if memory.kind != "memfd":
            found.append("No memfd: big data goes through temporary files, at the speed of their disk.")
    files = limits.open_files[0] if limits.open_files else None
    if files is not None and files < FEW_FDS:
        workers = max(1, (files - 32) // FDS_OF_A_WORKER)
        found.append(f"{files} open files are enough for about {workers} workers: ulimit -n raises the limit.")
    return found
