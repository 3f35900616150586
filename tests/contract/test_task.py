"""What `current_task()` tells a task, on every engine and every start method."""

from __future__ import annotations

import pickle
import random

import numpy
import pytest

import procflow
from procflow import TaskInfo, current_task
from procflow.worker.task import seed_of
from tests.contract import functions_workers as w
from tests.contract.conftest import Open, join
from tests.support import DEADLOCK

# -- where it is ----


def test_a_task_knows_where_its_item_is(pool: procflow.Pool) -> None:
    assert [task.index for task in pool.map(w.task, "abcde")] == [0, 1, 2, 3, 4]
    assert [task.index for task in pool.map(w.task, "abcde", 2)] == [0, 1, 2, 3, 4]
    assert [task.index for task in pool.imap(w.task, iter("abcde"))] == [0, 1, 2, 3, 4]
    assert sorted(task.index for task in pool.imap_unordered(w.task, "abcde")) == [0, 1, 2, 3, 4]
    assert pool.starmap(w.numbered, [("a", 1), ("b", 2)]) == [(0, "a", 1), (1, "b", 2)]


def test_a_single_call_is_item_0(pool: procflow.Pool) -> None:
    assert [pool.submit(w.task).result(DEADLOCK).index for _ in range(3)] == [0, 0, 0]
    assert pool.apply(w.task).index == 0


def test_many_quick_items_know_their_places(pool: procflow.Pool) -> None:
    assert [task.index for task in pool.map(w.task, range(5000))] == list(range(5000))


def test_a_task_knows_which_attempt_it_is(pool: procflow.Pool) -> None:
    view = pool.options(retries=3)
    task = view.submit(w.fails_before, 3).result(DEADLOCK)
    assert (task.index, task.attempt) == (0, 3)
    assert [task.attempt for task in view.map(w.fails_before, [1, 3, 2])] == [1, 3, 2]
    assert view.map(w.second_fails_once, range(4), 2) == [(0, 1), (1, 2), (2, 1), (3, 1)]


def test_an_attempt_counts_though_its_worker_died(workers: procflow.Pool) -> None:
    task = workers.options(retries=2).submit(w.dies_before, 3).result(DEADLOCK)
    assert task.attempt == 3


def test_a_pool_inside_a_task_has_tasks_of_its_own(pool: procflow.Pool) -> None:
    before, inside, after = pool.map(w.tasks_of_a_pool_inside, range(3))[2]
    assert before == after
    assert before.index == 2
    assert [task.index for task in inside] == [0, 1, 2]
    assert [task.seed for task in inside] == [seed_of(1, 1, place) for place in range(3)]


# -- where there is none ----


def test_outside_of_a_task_it_is_an_error(pool: procflow.Pool) -> None:
    pool.map(w.task, range(3))
    with pytest.raises(procflow.NoCurrentTask, match="no task of a pool runs here"):
        current_task()
    with pytest.raises(RuntimeError):
        current_task()


def test_an_initializer_is_no_task(open_pool: Open) -> None:
    with open_pool(1, initializer=w.keep_task) as pool:
        assert pool.apply(w.f.recall) == [None]


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_process_that_a_task_has_started_is_no_task(own: procflow.Pool, method: str) -> None:
    assert own.apply(w.task_of_a_process, (method,)) is None
    assert own.apply(w.task).index == 0


def test_a_thread_of_a_task_sees_the_task_of_its_worker(workers: procflow.Pool) -> None:
    for seen, own in workers.map(w.task_of_a_thread, range(3)):
        assert seen == own


def test_values_that_are_pickled_together_belong_to_no_task(workers: procflow.Pool) -> None:
    found = workers.map(w.return_who_asks, range(1000))
    assert {task.index for (task,) in found if task is not None} <= set(range(1000))
    for index, (task,) in enumerate(found):
        assert task is None or task.index == index


# -- the seed ----


def test_seeds_depend_on_nothing_but_the_seed_of_the_pool_and_the_calls(open_pool: Open) -> None:
    def all_seeds(workers: int, chunksize: int | None) -> list[int]:
        with open_pool(workers, seed=11) as pool:
            seeds = pool.map(w.seed, range(40), chunksize)
            seeds += pool.imap(w.seed, iter(range(20)), chunksize)
            seeds += [pool.submit(w.seed).result(DEADLOCK) for _ in range(3)]
            seeds += pool.map(w.seed_after, [0.0] * 20 + [2e-3] * 5, chunksize)
            return [*seeds, pool.apply(w.seed)]

    with procflow.Pool(engine="serial", seed=11) as serial:
        expected = serial.map(w.seed, range(40)) + list(serial.imap(w.seed, range(20)))
        expected += [serial.apply(w.seed) for _ in range(3)] + serial.map(w.seed, range(25)) + [serial.apply(w.seed)]
    assert all_seeds(1, None) == expected
    assert all_seeds(3, None) == expected
    assert all_seeds(2, 7) == expected
    assert len(set(expected)) == len(expected)


def test_pools_that_are_given_no_seed_have_different_ones(open_pool: Open) -> None:
    with open_pool(1) as first, open_pool(1) as second:
        assert first.seed != second.seed
        seeds = first.map(w.seed, range(5))
        assert not set(seeds) & set(second.map(w.seed, range(5)))
    with open_pool(1, seed=first.seed) as again:
        assert again.seed == first.seed
        assert again.map(w.seed, range(5)) == seeds


def test_each_attempt_has_the_same_seed(pool: procflow.Pool) -> None:
    task = pool.options(retries=1).submit(w.fails_before, 2).result(DEADLOCK)
    assert task.seed == seed_of(pool.seed, 1, 0)


def test_an_executor_has_seeds_too() -> None:
    def seeds(**options: int) -> list[int]:
        with procflow.PoolExecutor(2, seed=3) as executor:
            tasks = list(executor.map(w.task, range(10), **options))
            assert [task.index for task in tasks] == list(range(10))
            assert executor.submit(w.task).result(DEADLOCK).index == 0
            return [task.seed for task in tasks]

    plain = seeds()
    assert seeds(chunksize=3) == seeds(buffersize=2) == seeds(chunksize=3, buffersize=2) == plain
    assert len(set(plain)) == 10


def test_the_seed_is_what_it_is_said_to_be() -> None:
    import hashlib

    digest = hashlib.blake2b(b"5,1,3", digest_size=8).digest()
    assert seed_of(5, 1, 3) == int.from_bytes(digest, "big") >> 1


def test_the_seed_feeds_what_makes_random_numbers(pool: procflow.Pool) -> None:
    seeds = pool.map(w.seed, range(1000))
    assert all(0 <= seed < 2**63 for seed in seeds)
    throws = [random.Random(seed).random() for seed in seeds]
    assert 0.4 < sum(throws) / len(throws) < 0.6
    drawn = [numpy.random.default_rng(numpy.random.SeedSequence(seed)).random() for seed in seeds]
    assert 0.4 < sum(drawn) / len(drawn) < 0.6


# -- the object ----


def test_a_task_does_not_change_and_can_be_compared_and_sent() -> None:
    task = TaskInfo(1, 2, 3, 4)
    assert pickle.loads(pickle.dumps(task)) == task == TaskInfo(1, 2, 3, 4)
    assert task != TaskInfo(1, 2, 3, 5)
    assert task != (1, 2, 3, 4)
    assert len({task, TaskInfo(1, 2, 3, 4)}) == 1
    assert repr(task) == "TaskInfo(index=1, attempt=2, worker=3, seed=4)"
    with pytest.raises(AttributeError):
        task.index = 2  # type: ignore[misc]
    with pytest.raises(AttributeError):
        task.other = 2  # type: ignore[attr-defined]


def test_a_pool_that_was_terminated_leaves_no_task_behind(open_pool: Open) -> None:
    pool = open_pool(1)
    with pytest.raises(procflow.WorkerDied):
        pool.apply(w.leave)
    pool.terminate()
    join(pool)
    with pytest.raises(procflow.NoCurrentTask):
        current_task()
