"""No room for big data, no descriptor left: what can go on does, the rest is told of, and nothing is left behind."""

from __future__ import annotations

import itertools
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import procflow
from procflow.errors import ProcflowError
from tests.faults import tasks
from tests.support import DEADLOCK, PYTHONPATH, Leftovers, open_fds

BIG = 3_000_000  # bytes: more than a pipe or a packet takes


@contextmanager
def limit(kind: int, soft: int) -> Iterator[None]:
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


@pytest.fixture(params=["best", "portable"], autouse=True)
def variant(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROCFLOW_PORTABLE", str(int(request.param == "portable")))


@pytest.mark.parametrize("room", [0, 1 << 20])
def test_results_for_which_there_is_no_room_come_by_the_pipe(ctx: procflow.Context, room: int) -> None:
    with ctx.Pool(2, tasks.limit_files, (room,)) as pool:
        sent = [bytes([n]) * BIG for n in range(4)]
        assert pool.map(tasks.echo, sent) == sent
        assert list(pool.imap(tasks.echo, sent)) == sent
        assert pool.submit(tasks.echo, sent[1]).result(DEADLOCK) == sent[1]


def test_arguments_for_which_there_is_no_room_fail_their_task(ctx: procflow.Context) -> None:
    with ctx.Pool(2) as pool:
        pool.apply(os.getpid)
        for round_ in range(2):
            with limit(resource.RLIMIT_FSIZE, (1 << 20) * round_):
                with pytest.raises(procflow.PicklingError, match="no room"):
                    pool.submit(tasks.length, bytes(BIG)).result(DEADLOCK)
                with pytest.raises(procflow.PicklingError, match="no room"):
                    pool.map(tasks.length, [bytes(BIG)] * 3)
                assert pool.map(tasks.double, range(100)) == [2 * n for n in range(100)]
            assert pool.map(tasks.length, [bytes(BIG)] * 3) == [BIG] * 3


FULL = """
import sys
import procflow
from tests.faults import tasks

if __name__ == "__main__":
    with procflow.get_context(sys.argv[1]).Pool(2) as pool:
        sent = [bytes([n]) * 3_000_000 for n in range(4)]
        assert pool.map(tasks.echo, sent) == sent
    print("done")
"""


def _may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _may_mount(), reason="a /dev/shm of one's own needs the right to mount")
def test_a_full_shared_memory_folder_is_no_trouble(method: str, tmp_path: os.PathLike[str]) -> None:
    program = os.path.join(tmp_path, "full.py")
    with open(program, "w") as file:
        file.write(FULL)
    mount = "mount -t tmpfs -o size=16k tmpfs /dev/shm && cat /dev/zero >/dev/shm/full 2>/dev/null"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount}; exec "$@"', "sh", sys.executable, program, method],
        capture_output=True,
        text=True,
        timeout=DEADLOCK,
        check=False,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.slow
def test_a_pool_for_which_there_are_too_few_descriptors_says_so_and_leaves_nothing(ctx: procflow.Context) -> None:
    """The limit of the system itself, one descriptor more each time, until it is enough three times in a row."""
    with ctx.Pool(2) as pool:
        pool.apply(os.getpid)
    before = Leftovers()
    first = next(fd for fd in itertools.count() if fd not in open_fds())
    enough = 0
    for most in itertools.count(first):
        try:
            with limit(resource.RLIMIT_NOFILE, most), ctx.Pool(2) as pool:
                assert pool.apply_async(tasks.double, (2,)).get(DEADLOCK) == 4
        except (OSError, ProcflowError) as error:
            enough = 0
            assert "Too many open files" in str(error)  # noqa: PT017 - whether it fails is not known
        else:
            enough += 1
        before.check()
        if enough == 3:
            return
        assert most < first + 100, "no limit is enough"
