"""What tasks log reaches the handlers here, on every engine; and what they print can be had with their results."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

import procflow
from procflow import Captured, captured
from tests.contract import functions_logging as f
from tests.contract.conftest import Open
from tests.support import DEADLOCK


class Kept(logging.Handler):
    """Keeps records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def messages(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler, logger = Kept(), logging.getLogger("tests.logged")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def test_what_a_task_logs_is_handled_here_before_its_result_is_there(kept: Kept, elsewhere: procflow.Pool) -> None:
    assert elsewhere.map(f.warn, range(5)) == list(range(5))
    assert sorted(kept.messages) == [f"at {n}" for n in range(5)]
    for record in kept.records:
        assert record.getMessage() == f"at {vars(record)['task']}"
        assert 0 <= vars(record)["worker"] < 2
        assert record.process != os.getpid()
        assert record.name == "tests.logged"


def test_records_of_one_task_come_in_their_order(kept: Kept, elsewhere: procflow.Pool) -> None:
    elsewhere.submit(f.warn_often, 3000).result(DEADLOCK)
    assert kept.messages == [str(n) for n in range(3000)]


def test_what_a_task_logs_before_it_raises_is_there_with_its_traceback(kept: Kept, elsewhere: procflow.Pool) -> None:
    assert isinstance(elsewhere.submit(f.log_exception_and_raise).exception(DEADLOCK), LookupError)
    (record,) = kept.records
    assert "ZeroDivisionError" in str(record.exc_text)
    assert "log_exception_and_raise" in str(record.exc_text)
    assert record.exc_info is None


def test_what_does_not_pickle_is_told_in_words(kept: Kept, elsewhere: procflow.Pool) -> None:
    elsewhere.apply(f.log_a_lock)
    (record,) = kept.records
    assert "lock" in record.getMessage()
    assert "lock" in vars(record)["extra_lock"]
    assert vars(record)["extra_number"] == 7


def test_the_levels_of_the_loggers_here_hold_in_workers(kept: Kept, open_local: Open) -> None:
    logging.getLogger("tests.logged").setLevel(logging.DEBUG)
    with open_local(1) as pool:
        assert pool.apply(f.debug) is True
        assert kept.messages == ["fine detail"]
        logging.getLogger("tests.logged").setLevel(logging.ERROR)
        assert pool.apply(f.debug) is True  # it does not know that nobody wants it any more
        assert kept.messages == ["fine detail"]


def test_a_handler_that_raises_harms_nothing(open_local: Open, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("this handler is broken")

    broken, logger = Broken(), logging.getLogger("tests.logged")
    logger.addHandler(broken)
    try:
        with open_local(2) as pool:
            assert pool.map(f.warn, range(5)) == list(range(5))
    finally:
        logger.removeHandler(broken)
    assert "could not be handled" in caplog.text


def test_a_worker_that_is_killed_has_sent_what_it_logged(kept: Kept, open_local: Open) -> None:
    with open_local(1) as pool:
        error = pool.submit(f.warn_and_die).exception(DEADLOCK)
    assert isinstance(error, procflow.WorkerDied)
    assert kept.messages == ["the last words"]


def test_threads_of_a_task_log_whole_records(kept: Kept, open_local: Open) -> None:
    with open_local(1) as pool:
        assert pool.map(f.warn_in_threads, range(3), chunksize=1) == [0, 1, 2]
    assert sorted(kept.messages) == sorted(f"{n} {t} {k}" for n in range(3) for t in range(4) for k in range(100))


def test_a_fork_that_a_task_makes_sends_nothing(kept: Kept, open_local: Open) -> None:
    with open_local(1) as pool:
        assert pool.apply(f.warn_in_a_fork) == 0
    assert kept.messages == ["in the worker"]


def test_an_initializer_may_log_and_add_a_handler_of_its_own(kept: Kept, open_local: Open) -> None:
    with open_local(1, f.keep_records) as pool:
        pool.apply(f.warn, (1,))
        assert pool.apply(f.kept_messages) == ["at 1"]
    assert kept.messages == ["from the initializer", "at 1"]
    assert vars(kept.records[0])["task"] is None


def test_a_worker_that_nobody_logs_in_does_not_import_logging() -> None:
    with procflow.get_context("spawn").Pool(1) as pool:
        assert pool.apply(f.has_logging) is False


# -- what is printed --


def test_what_is_printed_comes_with_the_result(pool: procflow.Pool) -> None:
    found = pool.map(captured(f.print_and_warn), [1, 2])
    assert found == [Captured(n, f"out {n}\n", f"err {n}\n", (f"UserWarning: warn {n}",)) for n in (1, 2)]
    assert pool.apply(f.double, (4,)) == 8


def test_what_is_printed_goes_with_the_exception(pool: procflow.Pool) -> None:
    error = pool.submit(captured(f.print_and_raise), 3).exception(DEADLOCK)
    assert isinstance(error, ValueError)
    assert any("out 3" in note for note in error.__notes__)


def test_a_capture_shows_itself_and_can_be_compared() -> None:
    quiet, loud = Captured(1, "", "", ()), Captured(1, "a", "", ())
    assert repr(quiet) == "Captured(1)"
    assert repr(loud) == "Captured(1, stdout='a')"
    assert quiet != loud
    assert quiet != 1
    assert len({quiet, Captured(1, "", "", ())}) == 1
    assert repr(captured(f.double)).startswith("captured(<function double")
