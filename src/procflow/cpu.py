"""How many CPUs this process may really use, and nothing else.

The smallest of what the scheduler's affinity allows and what the CPU quotas of its control groups allow, unless the
user says otherwise. `os.cpu_count()` counts the machine's CPUs: in a container that may use two CPUs of 64, a pool of
that size starts 64 workers which take turns, and get throttled.

Reading is at the bottom (`quota_limit`); everything above it is a pure function from text to facts. It is imported by
`procflow` itself, so it imports os and sys only.

C1  The answer is never less than 1, whatever the files say.
C2  A file that is missing, unreadable or malformed sets no limit, and raises nothing.
C3  Limits nest: a group is bound by each of its ancestors, so the smallest limit on the way up counts.
"""

from __future__ import annotations

import os
import sys

__all__ = ["cpu_count", "default_workers", "set_sharers", "sharers"]

_sharers = 1  # processes, this one included, that were meant to keep the CPUs busy when it was started


def cpu_count() -> int:
    """Count the CPUs that this process may use: the default number of workers of a `Pool`.

    `-X cpu_count=N`, else the environment variable `PYTHON_CPU_COUNT=N`, is taken as it is, as Python 3.13 does, and
    here under every Python. Else it is the smallest of the affinity mask (`taskset`, `os.sched_setaffinity`, cpusets)
    and the CPU quotas of the process's control groups, versions 1 and 2, and of the groups above them
    (`docker run --cpus`, Kubernetes limits, systemd's CPUQuota). A quota of 1.5 CPUs counts as 2.

    Each call looks again, at the cost of reading a few small files: quotas and masks change while a process runs.

    Returns:
        At least 1.

    Raises:
        ValueError: `-X cpu_count` or `PYTHON_CPU_COUNT` is neither a positive integer nor `default`.

    Example:
        >>> 1 <= cpu_count()
        True
    """
    asked = override()
    if asked is not None:
        return asked
    allowed = affinity()
    limit = quota_limit()
    return max(1, allowed if limit is None else min(allowed, limit))


def default_workers() -> int:
    """Return how many workers a pool has if nobody says; in a worker of another pool, its share of the CPUs."""
    return max(1, cpu_count() // _sharers)


def sharers() -> int:
    """Return how many processes share the CPUs, this one included: all workers, if it is one, and theirs."""
    return _sharers


def set_sharers(count: int) -> None:
    """This process is a worker, one of so many."""
    global _sharers
    _sharers = count


def override() -> int | None:
    """Give what the user set by `-X cpu_count` or `PYTHON_CPU_COUNT`, in this order; None if nothing."""
    option = sys._xoptions.get("cpu_count")  # pyright: ignore[reportPrivateUsage] # documented
    if option is not None:
        # `-X cpu_count` without a value arrives as True.
        return parse_override("-X cpu_count", "" if option is True else str(option))
    variable = "" if sys.flags.ignore_environment else os.environ.get("PYTHON_CPU_COUNT", "")
    return parse_override("PYTHON_CPU_COUNT", variable) if variable else None


def parse_override(name: str, value: str) -> int | None:
    """Read a positive integer, or `default`, which means: as if it were not set."""
    if value == "default":
        return None
    if not (value.isascii() and value.isdigit() and int(value) > 0):
        raise ValueError(f"{name}={value!r}: give a positive integer, or 'default'")
    return int(value)


def affinity() -> int:
    """Count the CPUs in this process's affinity mask; all of the machine's where the system has no such mask."""
    if hasattr(os, "sched_getaffinity"):
        try:
            return len(os.sched_getaffinity(0))
        except OSError:
            pass  # a sandbox may forbid the call
    return os.cpu_count() or 1


# ---------------------------------------------------------------------------------------------------------------------
# Control groups. cgroups(7), cgroup_namespaces(7), proc(5) "/proc/pid/mountinfo", the kernel's cgroup-v2.rst "cpu.max".


def quota_limit(root: str = "/") -> int | None:
    """Give the CPUs that the quotas of this process's control groups allow; None if no quota is set.

    Args:
        root: The directory that holds `proc` and everything that `proc/self/mountinfo` names.
    """
    groups = parse_groups(_read(os.path.join(root, "proc/self/cgroup")))
    if not groups:
        return None
    mounts = parse_mounts(_read(os.path.join(root, "proc/self/mountinfo")))
    limits: list[int] = []
    for version, directory in group_directories(groups, mounts):
        where = os.path.join(root, directory.lstrip("/"))
        names = ["cpu.max"] if version == 2 else ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        limit = parse_cpu_max(" ".join(_read(os.path.join(where, name)) for name in names))
        if limit is not None:
            limits.append(limit)
    return min(limits, default=None)


def parse_groups(text: str) -> list[tuple[int, str]]:
    r"""Read /proc/self/cgroup: the (version, path) of each group that may hold a CPU quota.

    On a hybrid system both appear; the cpu controller is then on one of them, and the other has no quota files.

    Example:
        >>> parse_groups("4:memory:/a\n3:cpu,cpuacct:/b\n0::/c\n")
        [(1, '/b'), (2, '/c')]
    """
    groups: list[tuple[int, str]] = []
    for line in text.splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")  # the path itself may hold a colon
        if not colon or not path.startswith("/"):
            continue
        if hierarchy == "0" and not controllers:
            groups.append((2, path))
        elif "cpu" in controllers.split(","):
            groups.append((1, path))
    return groups


def parse_mounts(text: str) -> list[tuple[int, str, str]]:
    r"""Read /proc/self/mountinfo: the (version, root, mount point) of each mount that may hold a CPU quota.

    Example:
        >>> parse_mounts("31 23 0:28 /docker/1 /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n")
        [(1, '/docker/1', '/sys/fs/cgroup/cpu')]
    """
    mounts: list[tuple[int, str, str]] = []
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        # ID, parent ID, major:minor, root, mount point, options, optional fields - type, source, super options
        head, tail = before.split(" "), after.split(" ")
        if not dash or len(head) < 6 or len(tail) < 3:
            continue
        if tail[0] == "cgroup2":
            mounts.append((2, _unescape(head[3]), _unescape(head[4])))
        elif tail[0] == "cgroup" and "cpu" in tail[2].split(","):
            mounts.append((1, _unescape(head[3]), _unescape(head[4])))
    return mounts


def group_directories(groups: list[tuple[int, str]], mounts: list[tuple[int, str, str]]) -> list[tuple[int, str]]:
    """Name the directories of the groups and of all their visible ancestors, as (version, directory).

    What a container sees depends on how it was made. Without a cgroup namespace the group's path is the host's, and
    the mount's root is a prefix of it, often all of it; with one both are `/`. A path that starts with `/..` is
    outside of the namespace, and one which the mount's root does not contain is not in this mount: then the mount
    point is all that can be seen, and what it says binds what runs in the container.
    """
    directories: list[tuple[int, str]] = []
    for version, path in groups:
        points = [(root, point) for mounted, root, point in mounts if mounted == version]
        inside = [(root, point) for root, point in points if _contains(root, path)]
        for root, point in inside or points:
            below = path[len(root.rstrip("/")) :] if inside else ""
            names = [name for name in below.split("/") if name]
            if ".." in names:
                names = []
            directories += [(version, "/".join([point, *names[:depth]])) for depth in range(len(names), -1, -1)]
    return list(dict.fromkeys(directories))  # the same file system may be mounted twice at one place


def parse_cpu_max(text: str) -> int | None:
    """Read `quota period` in microseconds, the content of `cpu.max`: CPUs rounded up, or None for no limit.

    Version 1 has the two in files of their own, and writes -1 where version 2 writes max.

    Example:
        >>> parse_cpu_max("150000 100000"), parse_cpu_max("1000 100000"), parse_cpu_max("max 100000")
        (2, 1, None)
    """
    words = text.split()
    try:
        quota, period = map(int, words)
    except ValueError:
        return None  # max, or nothing to read, or not a line that we know
    if quota <= 0 or period <= 0:
        return None
    return -(-quota // period)


def _contains(root: str, path: str) -> bool:
    return root in ("/", path) or path.startswith(root + "/")


def _unescape(word: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        word = word.replace(code, character)
    return word


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except (OSError, ValueError):  # ValueError: a path with a null character
        return ""
