"""The story of a task, from made-up histories."""

from __future__ import annotations

import pickle

from procflow import WorkerDied
from procflow.dispatch.story import add_story, story_of

HISTORY = [
    ("starting", 1.0, 1, 0),
    ("started", 2.0, 1, 0),
    ("sent", 3.0, 1, 5, 7, 10, 4),  # packet 5: items 10 to 13 of job 7 to worker 1
    ("sent", 3.5, 2, 6, 7, 14, 1),
    ("returned", 4.0, 1, 5, 7, 12, 2),
    ("sent", 5.0, 2, 8, 7, 12, 2),
    ("ended", 6.0, 1, 0, 41, -9, ""),
    ("retried", 7.0, 7, 12, 2),
    ("sent", 8.0, 3, 9, 7, 12, 1),
    ("done", 8.5, 2, 8, 7, 12, 2, 0.1),
    ("ended", 9.0, 3, 0, 43, -11, ""),
]


def test_it_tells_who_had_the_task_and_what_became_of_them() -> None:
    assert story_of(HISTORY, 7, 12, 10.0) == (
        "7.000 s before: sent to worker 1, with 3 others",
        "6.000 s before: worker 1 had not begun it; it waits again",
        "5.000 s before: sent to worker 2, with 1 other",
        "3.000 s before: it failed, and is to begin again, as attempt 2",
        "2.000 s before: sent to worker 3",
        "1.000 s before: worker 3 (process 43) died (SIGSEGV)",
    )


def test_it_tells_of_no_other_task() -> None:
    assert story_of(HISTORY, 7, 10, 10.0) == (
        "7.000 s before: sent to worker 1, with 3 others",
        "4.000 s before: worker 1 (process 41) died (SIGKILL)",
    )
    assert story_of(HISTORY, 7, 14, 10.0) == ("6.500 s before: sent to worker 2",)


def test_where_no_worker_had_it_it_tells_how_workers_started_and_ended() -> None:
    assert story_of(HISTORY, 8, 0, 10.0) == (
        "9.000 s before: worker 1 is started, in slot 0",
        "8.000 s before: worker 1 is ready, in slot 0",
        "4.000 s before: worker 1 (process 41) died (SIGKILL)",
        "1.000 s before: worker 3 (process 43) died (SIGSEGV)",
    )


def test_an_error_tells_it_and_pickles_with_it() -> None:
    error = WorkerDied(3, 41, -9, True)
    assert error.story == ()
    add_story(error, ("first", "second"))
    again = pickle.loads(pickle.dumps(error))
    assert again.story == ("first", "second")
    assert again.__notes__ == ["What the pool did with it:\n  first\n  second"]
    plain = ValueError(1)
    add_story(plain, ("first",))
    assert not hasattr(plain, "__notes__")
