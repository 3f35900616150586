"""cpu_count: the text of each file, fake trees of every layout, and this very process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from procflow import cpu

Tree = Callable[[dict[str, str]], str]

V2_MOUNT = "40 31 0:38 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNT = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
OTHER_MOUNTS = (
    "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
    "33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
    "34 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    def make(files: dict[str, str]) -> str:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return str(tmp_path)

    return make


@pytest.fixture
def no_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHON_CPU_COUNT", raising=False)
    monkeypatch.setattr(sys, "_xoptions", {})


# --- one line of each file ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("100000 100000\n", 1),
        ("150000 100000\n", 2),
        ("200000 100000\n", 2),
        ("200001 100000\n", 3),
        ("1000 100000\n", 1),
        ("max 100000\n", None),
        ("-1\n 100000\n", None),
        ("0 100000\n", None),
        ("100000 0\n", None),
        ("100000\n", None),
        ("", None),
        ("one two\n", None),
        ("1 2 3\n", None),
    ],
)
def test_a_quota_is_rounded_up_and_what_is_no_quota_sets_no_limit(text: str, limit: int | None) -> None:
    assert cpu.parse_cpu_max(text) == limit


def test_groups_are_found_among_other_controllers() -> None:
    text = "9:name=systemd:/\n5:cpuset:/s\n3:cpu,cpuacct:/docker/a:b\n2:cpuacct:/c\n0::/user.slice\n"
    assert cpu.parse_groups(text) == [(1, "/docker/a:b"), (2, "/user.slice")]


@pytest.mark.parametrize("text", ["", "\n", "0", "0:", "0::", "0::relative", "cpu", ":::", "1:cpu\n"])
def test_a_malformed_group_is_ignored(text: str) -> None:
    assert cpu.parse_groups(text) == []


def test_mounts_are_found_with_and_without_optional_fields_and_unescaped() -> None:
    text = (
        OTHER_MOUNTS
        + V1_MOUNT
        + "40 31 0:38 / /a\\040b\\134c rw - cgroup2 none rw\n"
        + "41 31 0:38 /x /y rw shared:1 master:2 - cgroup2 none rw\n"
    )
    assert cpu.parse_mounts(text) == [(1, "/", "/sys/fs/cgroup/cpu,cpuacct"), (2, "/", "/a b\\c"), (2, "/x", "/y")]


@pytest.mark.parametrize("text", ["", "\n", " - ", "1 2 3 - cgroup2 x y\n", "32 31 0:29 / /sys rw - cgroup2\n"])
def test_a_malformed_mount_is_ignored(text: str) -> None:
    assert cpu.parse_mounts(text) == []


# --- whole trees -------------------------------------------------------------------------------------------------


def test_v2_at_the_root_of_a_namespace(tree: Tree) -> None:
    root = tree(
        {
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": OTHER_MOUNTS + V2_MOUNT,
            "sys/fs/cgroup/cpu.max": "250000 100000\n",
        }
    )
    assert cpu.quota_limit(root) == 3


@pytest.mark.parametrize(
    ("outer", "middle", "inner", "limit"),
    [
        ("max 100000", "200000 100000", "400000 100000", 2),
        ("100000 100000", "200000 100000", "max 100000", 1),
        ("max 100000", "max 100000", "300000 100000", 3),
        ("max 100000", "max 100000", "max 100000", None),
        ("max 100000", "nonsense", "", None),
        ("max 100000", "50000 50000", "nonsense", 1),
    ],
)
def test_v2_nested_groups_are_bound_by_the_tightest(
    tree: Tree, outer: str, middle: str, inner: str, limit: int | None
) -> None:
    root = tree(
        {
            "proc/self/cgroup": "0::/user.slice/job/step\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/user.slice/cpu.max": outer,
            "sys/fs/cgroup/user.slice/job/cpu.max": middle,
            "sys/fs/cgroup/user.slice/job/step/cpu.max": inner,
            "sys/fs/cgroup/another/cpu.max": "1 1",
        }
    )
    assert cpu.quota_limit(root) == limit


def test_v1_with_a_quota_of_one_and_a_half(tree: Tree) -> None:
    root = tree(
        {
            "proc/self/cgroup": "4:memory:/m\n3:cpu,cpuacct:/job\n",
            "proc/self/mountinfo": OTHER_MOUNTS + V1_MOUNT,
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "75000\n",
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "50000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        }
    )
    assert cpu.quota_limit(root) == 2


def test_v1_a_container_that_sees_the_path_of_its_host(tree: Tree) -> None:
    root = tree(
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/docker/0123\n",
            "proc/self/mountinfo": "32 31 0:29 /docker/0123 /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu,cpuacct\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        }
    )
    assert cpu.quota_limit(root) == 4


def test_v1_a_group_below_the_root_of_the_mount(tree: Tree) -> None:
    root = tree(
        {
            "proc/self/cgroup": "3:cpu:/docker/0123/inner\n",
            "proc/self/mountinfo": "32 31 0:29 /docker/0123 /cg ro - cgroup cgroup rw,cpu\n",
            "cg/cpu.cfs_quota_us": "400000",
            "cg/cpu.cfs_period_us": "100000",
            "cg/inner/cpu.cfs_quota_us": "200000",
            "cg/inner/cpu.cfs_period_us": "100000",
        }
    )
    assert cpu.quota_limit(root) == 2


def test_v1_without_a_period_sets_no_limit(tree: Tree) -> None:
    root = tree(
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/\n",
            "proc/self/mountinfo": V1_MOUNT,
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "100000\n",
        }
    )
    assert cpu.quota_limit(root) is None


def test_hybrid_takes_the_hierarchy_that_has_the_controller(tree: Tree) -> None:
    root = tree(
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/job\n0::/job\n",
            "proc/self/mountinfo": V1_MOUNT + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "200000",
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/unified/job/cgroup.procs": "1\n",
        }
    )
    assert cpu.quota_limit(root) == 2


@pytest.mark.parametrize("path", ["/../../other", "/not/below/the/root"])
def test_a_group_out_of_sight_is_bound_by_the_mount_point(tree: Tree, path: str) -> None:
    root = tree(
        {
            "proc/self/cgroup": f"0::{path}\n",
            "proc/self/mountinfo": "40 31 0:38 /docker/1 /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
            "sys/fs/cgroup/cpu.max": "200000 100000",
            "other/cpu.max": "100000 100000",
        }
    )
    assert cpu.quota_limit(root) == 2


def test_a_path_that_climbs_is_never_followed() -> None:
    assert cpu.group_directories([(2, "/../../etc")], [(2, "/", "/cg")]) == [(2, "/cg")]


def test_a_root_is_a_prefix_by_whole_names_only() -> None:
    assert cpu.group_directories([(2, "/docker/12")], [(2, "/docker/1", "/cg")]) == [(2, "/cg")]


@pytest.mark.parametrize("present", [{}, {"proc/self/cgroup": "0::/\n"}, {"proc/self/mountinfo": V2_MOUNT}])
def test_missing_files_set_no_limit(tree: Tree, present: dict[str, str]) -> None:
    assert cpu.quota_limit(tree(present)) is None


def test_files_that_are_not_text_set_no_limit(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_bytes(b"0::/\xff\n\x00")
    (tmp_path / "proc/self/mountinfo").write_bytes(b"\xff\xfe\x00" + V2_MOUNT.encode())
    assert cpu.quota_limit(str(tmp_path)) is None


# --- put together ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "limit", "count"), [(8, None, 8), (8, 3, 3), (2, 16, 2), (1, 1, 1), (0, None, 1), (4, 0, 1)]
)
@pytest.mark.usefixtures("no_override")
def test_the_smaller_of_affinity_and_quota_and_at_least_one(
    monkeypatch: pytest.MonkeyPatch, allowed: int, limit: int | None, count: int
) -> None:
    monkeypatch.setattr(cpu, "affinity", lambda: allowed)
    monkeypatch.setattr(cpu, "quota_limit", lambda: limit)
    assert cpu.cpu_count() == count


def test_the_environment_overrides_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_xoptions", {})
    monkeypatch.setenv("PYTHON_CPU_COUNT", "77")
    assert cpu.cpu_count() == 77


@pytest.mark.parametrize("value", ["", "default"])
@pytest.mark.usefixtures("no_override")
def test_an_empty_or_default_override_is_none(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("PYTHON_CPU_COUNT", value)
    assert cpu.override() is None


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "²", " 2"])
@pytest.mark.usefixtures("no_override")
def test_a_wrong_override_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("PYTHON_CPU_COUNT", value)
    with pytest.raises(ValueError, match="PYTHON_CPU_COUNT"):
        cpu.cpu_count()


def test_the_option_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHON_CPU_COUNT", "77")
    monkeypatch.setattr(sys, "_xoptions", {"cpu_count": "5"})
    assert cpu.cpu_count() == 5
    monkeypatch.setattr(sys, "_xoptions", {"cpu_count": "default"})
    assert cpu.override() is None
    monkeypatch.setattr(sys, "_xoptions", {"cpu_count": True})
    with pytest.raises(ValueError, match="-X cpu_count"):
        cpu.override()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity masks")
@pytest.mark.parametrize(
    ("arguments", "program", "printed"),
    [
        (["-X", "cpu_count=6"], "", "6"),
        ([], "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});", "1"),
    ],
)
def test_a_real_interpreter_counts_what_it_was_given(arguments: list[str], program: str, printed: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHON_CPU_COUNT"}
    code = f"import os; {program} from procflow.cpu import cpu_count; print(cpu_count())"
    done = subprocess.run(
        [sys.executable, *arguments, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout.strip(), done.stderr) == (printed, "")


def test_affinity_falls_back_to_the_count_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(pid: int) -> set[int]:
        raise PermissionError(pid)

    monkeypatch.setattr(os, "sched_getaffinity", forbidden, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert cpu.affinity() == 12
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpu.affinity() == 1
