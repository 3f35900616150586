"""Big data between a pool and its workers: what comes out is what went in, and whose memory it is."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import procflow
from procflow import Pool
from procflow.errors import PicklingError, WorkerDied
from procflow.wire import parcels
from tests.integration import targets_arrays as targets
from tests.integration.targets_arrays import SIZE, Buffer, Carrier
from tests.property.functions import imported
from tests.support import DEADLOCK, wait_until

KINDS = ["fork", "spawn", "forkserver", "portable"]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def open_pool(kind: str, processes: int = 2, **options: Any) -> Pool:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROCFLOW_PORTABLE", "1" if kind == "portable" else "")
        method = "forkserver" if kind == "portable" else kind
        return procflow.get_context(method).Pool(processes, **options)


@pytest.fixture
def pool(kind: str) -> Iterator[Pool]:
    with open_pool(kind) as opened:
        yield opened


@pytest.fixture
def served() -> Iterator[Pool]:
    with open_pool("forkserver") as opened:
        yield opened


def arrays() -> dict[str, Any]:
    grid = np.arange(SIZE, dtype="f8").reshape(100, -1)
    read_only = grid.copy()
    read_only.flags.writeable = False
    return {
        "plain": grid,
        "fortran": np.asfortranarray(grid),
        "not contiguous": grid[::2, 1::3],
        "backwards": grid[::-1],
        "read-only": read_only,
        "empty": np.empty((0, 5)),
        "empty, of a large one": grid[:0],
        "structured": np.zeros(SIZE, dtype=[("a", "i4"), ("b", "f8", (2,)), ("c", "S3")]),
        "objects": np.array([b"x" * SIZE, "text", None], dtype=object),
        "dates": np.arange(SIZE).astype("M8[s]"),
        "zero-dimensional": np.array(5.0),
        "big-endian": grid.astype(">f4"),
        "small": np.arange(5),
    }


def test_an_array_comes_back_as_it_was(pool: Pool) -> None:
    for name, sent in arrays().items():
        came = pool.apply(targets.echo, (sent,))
        assert came.dtype == sent.dtype, name
        assert came.shape == sent.shape, name
        assert came.flags.f_contiguous == sent.flags.f_contiguous or name in ("not contiguous", "backwards"), name
        assert came.flags.writeable == sent.flags.writeable, name
        np.testing.assert_array_equal(came, sent, name)


def test_large_values_come_back_as_they_were(pool: Pool) -> None:
    values: list[Any] = [b"b" * SIZE, bytearray(b"a" * SIZE), "t" * SIZE, "\N{SNOWMAN}" * SIZE]
    for value in [*values, [b"x" * SIZE] * 3, {1: b"y" * 10 * SIZE}]:
        for _ in range(3):
            came = pool.apply(targets.echo, (value,))
            assert came == value
            assert type(came) is type(value)


def test_a_class_may_give_its_memory_away(pool: Pool) -> None:
    for readonly in (False, True):
        data: Any = b"q" * SIZE if readonly else bytearray(b"q" * SIZE)
        came = pool.apply(targets.echo, (Buffer(data),))
        assert bytes(came.data) == b"q" * SIZE
        assert came.data.readonly == readonly


def test_frames_come_back_as_they_were(pool: Pool) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": np.arange(SIZE), "b": np.linspace(0, 1, SIZE), "c": ["text"] * SIZE})
    pandas.testing.assert_frame_equal(pool.apply(targets.echo, (frame,)), frame)


def test_every_shape_of_call_carries_arrays(pool: Pool) -> None:
    inputs = [targets.filled(n) for n in range(40)]
    sums = [float(array.sum()) for array in inputs]
    assert pool.map(targets.total, inputs) == sums
    assert pool.map(targets.total, inputs, chunksize=7) == sums
    assert list(pool.imap(targets.total, inputs)) == sums
    assert sorted(pool.imap_unordered(targets.total, iter(inputs))) == sorted(sums)
    assert pool.starmap(targets.total, [(array,) for array in inputs]) == sums
    assert [future.result() for future in [pool.submit(targets.total, array) for array in inputs]] == sums
    for results in (
        pool.map(targets.filled, range(40)),
        pool.map(targets.filled, range(40), chunksize=10),
        list(pool.imap(targets.filled, range(40))),
        list(pool.imap(targets.filled, range(40), chunksize=4)),
        [future.result() for future in [pool.submit(targets.filled, n) for n in range(40)]],
    ):
        assert [(len(set(array.tolist())), int(array[0])) for array in results] == [(1, n) for n in range(40)]


def test_many_arrays_in_one_result_and_mixed_ones(pool: Pool) -> None:
    for n, arrays in enumerate(pool.imap(targets.many, range(20), chunksize=3)):
        assert [int(array[-1]) for array in arrays] == [n + i for i in range(5)]
    came = pool.map(targets.with_buffers, range(10))
    assert [(int(one["array"][5]), one["bytes"][:1], one["small"].tolist()) for one in came] == [
        (n, bytes([n]), [0, 1, 2]) for n in range(10)
    ]


def test_an_exception_brings_its_array(pool: Pool) -> None:
    with pytest.raises(Carrier) as caught:
        pool.apply(targets.raising, (targets.filled(3),))
    assert int(caught.value.args[0][5]) == 3
    caught.value.args[0][0] = 1


def test_what_goes_by_value_brings_its_array(served: Pool) -> None:
    offset = targets.filled(4)
    assert served.apply(lambda array: int(array[0]) + int(offset[1]), (targets.filled(3),)) == 7
    assert served.apply(targets.lambda_result, (5,))()[3] == 5


def test_views_are_everybodys_own(pool: Pool) -> None:
    mine = targets.filled(7)
    assert pool.apply(targets.scribble, (mine,)) == 7
    assert set(mine) == {7}
    first, second = (pool.apply(targets.echo, (mine,)) for _ in range(2))
    first[:] = 1
    assert set(second) == {7}
    assert set(pool.apply(targets.echo, (second,))) == {7}


def test_results_that_are_held_stay_as_they_are_whatever_follows(pool: Pool) -> None:
    held = [pool.apply(targets.filled, (n,)) for n in range(60)]
    del held[::3]
    held += pool.map(targets.echo, held)
    assert [sorted(set(array.tolist())) for array in held] == [[n] for n in range(60) if n % 3] * 2


def test_a_task_may_keep_its_argument(pool: Pool) -> None:
    futures = [pool.submit(targets.keep, targets.filled(n)) for n in range(30)]
    assert len({future.result() for future in futures}) <= 2
    for n in range(30):
        pool.apply(targets.total, (targets.filled(100 + n),))
    for values in pool.map(targets.kept_values, range(8), chunksize=1):
        assert all(len(value) == 1 and value[0] < 30 for value in values)


@pytest.mark.slow
def test_results_outlive_their_worker_and_their_pool(kind: str) -> None:
    with open_pool(kind, maxtasksperchild=1) as pool:
        read = pool.map(targets.filled, range(12), chunksize=1)
        unread = [pool.submit(targets.filled, n) for n in range(12)]
        terminated = [future for future in unread if future.exception(DEADLOCK) is None]
        assert len(terminated) == 12
    gc.collect()
    assert [int(array[9]) for array in read] == list(range(12))
    assert [int(future.result()[9]) for future in unread] == list(range(12))
    read[0][:] = 9  # the memory is still there, and ours


def test_unread_results_are_there_after_terminate(kind: str) -> None:
    pool = open_pool(kind)
    futures = [pool.submit(targets.filled, n) for n in range(6)]
    for future in futures:
        future.wait(DEADLOCK)
    pool.terminate()
    pool.join()
    assert [int(future.result()[3]) for future in futures] == list(range(6))


def test_a_replaced_worker_inherits_the_room_for_results(served: Pool) -> None:
    before = len(targets.memory_files())
    held: list[Any] = []
    with open_pool("forkserver", 1, maxtasksperchild=1) as pool:
        for n in range(25):
            held.append(pool.apply(targets.filled, (n,)))
            # Tasks, results, and those of the next worker; of one that is slow to end, too, until it has.
            wait_until(lambda: len(targets.memory_files()) <= before + 3, "the end of the workers before")
    assert [int(array[0]) for array in held] == list(range(25))


# -- deaths


@pytest.mark.slow
@pytest.mark.parametrize("work", [targets.die_after, targets.die_while_pickling])
def test_a_death_fails_one_task_and_frees_what_the_worker_had(pool: Pool, work: Any) -> None:
    held = pool.apply(targets.filled, (9,))
    for n in range(5):
        with pytest.raises(WorkerDied):
            pool.apply(work, (targets.filled(n),))
        assert pool.apply(targets.total, (targets.filled(1),)) == SIZE
    assert set(held) == {9}
    assert pool.map(targets.total, [targets.filled(2)] * 20) == [2 * SIZE] * 20


def test_blocks_of_dead_workers_are_used_again(served: Pool) -> None:
    array = np.ones(2**22, np.uint8)

    def size() -> int:
        return sum(targets.memory_files().values())

    for _ in range(3):
        with pytest.raises(WorkerDied):
            served.apply(targets.die_after, (array,))
    first = size()
    for _ in range(12):
        with pytest.raises(WorkerDied):
            served.apply(targets.die_after, (array,))
    assert size() <= first + array.nbytes


@pytest.mark.slow
def test_kills_at_any_moment_spoil_no_result(kind: str) -> None:
    with open_pool(kind) as pool:
        pids = set(pool.map(targets.keep, [targets.filled(1)] * 4, chunksize=1))
        done = lost = 0
        results: list[tuple[int, Any]] = []
        for n in range(60):
            future = pool.submit(targets.echo, targets.filled(n))
            if n % 10 == 5:
                for pid in pids:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                pids = set()
            try:
                results.append((n, future.result(DEADLOCK)))
                done += 1
            except WorkerDied:
                lost += 1
            if not pids:
                pids = {pool.apply(targets.keep, (targets.filled(0),))}
        assert done + lost == 60
        assert all(set(array.tolist()) == {n} for n, array in results)


# -- forks


def test_a_fork_of_this_process_keeps_its_results(served: Pool) -> None:
    array = served.apply(targets.filled, (5,))
    unread = served.submit(targets.filled, 6)
    unread.wait(DEADLOCK)
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.read(go[0], 1)
            code = 0 if set(array) == {5} and set(unread.result()) == {6} else 2
        finally:
            os._exit(code)
    array[:] = 1
    results = [served.apply(targets.filled, (n,)) for n in range(20)]  # every block is used again
    os.write(go[1], b"!")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert set(array) == {1}
    assert [int(result[0]) for result in results] == list(range(20))
    for fd in (*ready, *go):
        os.close(fd)


def test_a_task_may_fork(pool: Pool) -> None:
    for _ in range(3):
        assert pool.apply(targets.die_in_fork_of_mine, (targets.filled(5),)) == (b"\1\5", b"\5\5")
    assert pool.apply(targets.total, (targets.filled(1),)) == SIZE


# -- limits


def test_beyond_the_limit_results_are_copied(served: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcels, "HELD_MOST", 3 * SIZE)
    held = [served.apply(targets.filled, (n,)) for n in range(20)]
    assert [sorted(set(array.tolist())) for array in held] == [[n] for n in range(20)]
    assert all(array.flags.writeable for array in held)


def test_if_results_find_no_room_they_come_by_the_pipe() -> None:
    with open_pool("forkserver", 1) as pool:
        pool.apply(targets.no_memory_for_blocks, ("",))
        held = [pool.apply(targets.filled, (n,)) for n in range(20)]
        assert max(targets.memory_files().values()) < SIZE  # there is not one block
        assert [sorted(set(array.tolist())) for array in held] == [[n] for n in range(20)]
        assert all(array.flags.writeable for array in held)
        mixed = pool.map(targets.with_buffers, range(5))
        assert [int(one["array"][0]) for one in mixed] == list(range(5))
        with pytest.raises(Carrier):
            pool.apply(targets.raising, (targets.filled(3),))


@pytest.mark.parametrize("kind", ["forkserver", "portable"])
def test_if_arguments_find_no_room_that_task_fails_and_no_other(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_pool(kind) as pool:
        assert pool.apply(targets.total, (targets.filled(1),)) == SIZE
        real = os.pwrite

        def full(fd: int, data: Any, offset: int) -> int:
            if len(data) > 10 * SIZE:
                raise OSError(28, "No space left on device")
            return real(fd, data, offset)

        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(PicklingError, match=r"no room for the arguments.*No space left"):
            pool.apply(targets.total, (np.ones(20 * SIZE, np.uint8),))
        assert pool.apply(targets.total, (targets.filled(2),)) == 2 * SIZE
        monkeypatch.undo()
        assert pool.apply(targets.total, (np.ones(20 * SIZE, np.uint8),)) == 20 * SIZE


# -- what is left


def test_nothing_grows_over_many_rounds(kind: str) -> None:
    array = np.ones(2**20, np.uint8)

    def measure(pool: Pool) -> list[int]:
        gc.collect()
        maps = len(Path("/proc/self/maps").read_text().splitlines())
        worker = pool.apply(targets.my_memory, (0,))
        return [len(os.listdir("/proc/self/fd")), maps, *worker, sum(targets.memory_files().values()) >> 20]

    with open_pool(kind, 1) as pool:
        for _ in range(20):
            pool.apply(targets.echo, (array,))
        before = measure(pool)
        for _ in range(200):
            pool.apply(targets.echo, (array,))
        for n in range(1000):
            assert pool.apply(targets.echo, (n,)) == n
        after = measure(pool)
    allowed = [0, 8, 0, 8, 1]  # Python's own arenas are mappings, too
    assert all(now <= then + more for then, now, more in zip(before, after, allowed, strict=True)), (before, after)


@pytest.mark.parametrize("kind", ["spawn", "forkserver", "portable"])
def test_ctypes_is_imported_when_something_big_comes(kind: str) -> None:
    with open_pool(kind, 1) as pool:
        pool.apply(len, (b"x" * 5000,))
        assert "ctypes" not in pool.apply(imported, (0,))
        pool.apply(len, (b"x" * SIZE,))
        assert ("ctypes" in pool.apply(imported, (0,))) == (kind != "portable")


def test_a_gigantic_array_goes_in_and_out() -> None:
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if available < 6 * 2**30:
        pytest.skip("not enough memory")
    with open_pool("forkserver", 1) as pool:
        array = np.zeros(2**30 // 8)
        array[-1] = 3
        assert pool.apply(targets.total, (array,)) == 3
        del array
        came = pool.apply(np.zeros, (2**30 // 8,))
        came[-1] = 5
        assert came.sum() == 5
        assert sum(targets.memory_files().values()) < 2.2 * 2**30
