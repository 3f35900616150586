"""Progress: what the displays are told, on every engine and by every method that waits; and the real displays."""

from __future__ import annotations

import gc
import io
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import procflow
from procflow.observe.progress import Report, Text, describe
from tests.contract import functions as f


class Seen(list[Report]):
    """A display that keeps what it is told, and checks that it is told by the thread that waits."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()

    def __call__(self, report: Report) -> None:
        self.append(report)
        self.threads.add(threading.get_ident())

    def check(self, done: int, total: int | None) -> None:
        """It went up, and ended once, here."""
        assert [report.done for report in self] == sorted(report.done for report in self)
        assert [report.final for report in self] == [False] * (len(self) - 1) + [True]
        assert self[-1] == Report(done, total, True)
        assert {report.total for report in self} == {total}
        assert self.threads == {threading.get_ident()}


@pytest.fixture(params=["serial", "fork", "forkserver", "spawn"])
def pool(request: pytest.FixtureRequest) -> Iterator[procflow.Pool]:
    if request.param == "serial":
        made = procflow.Pool(engine="serial")
    else:
        made = procflow.Pool(2, context=procflow.get_context(request.param))
    with made:
        yield made


def test_a_map_reports_up_to_its_end(pool: procflow.Pool) -> None:
    seen = Seen()
    assert pool.map(f.double, range(300), progress=seen) == list(range(0, 600, 2))
    seen.check(300, 300)
    seen = Seen()
    assert pool.starmap(f.add, iter([(1, 2), (3, 4)]), progress=seen) == [3, 7]
    seen.check(2, 2)
    seen = Seen()
    assert pool.map(f.double, [], progress=seen) == []
    seen.check(0, 0)


def test_a_map_that_fails_reports_its_end_before_it_raises(pool: procflow.Pool) -> None:
    seen = Seen()
    with pytest.raises(ValueError, match=r"^1$"):
        pool.map(f.odd_fails, range(50), progress=seen)
    seen.check(50, 50)


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_a_stream_counts_what_was_taken(pool: procflow.Pool, method: str) -> None:
    seen = Seen()
    assert sorted(getattr(pool, method)(f.double, range(100), progress=seen)) == list(range(0, 200, 2))
    seen.check(100, 100)
    seen = Seen()
    assert sorted(getattr(pool, method)(f.double, (number for number in range(10)), progress=seen)) == [
        *range(0, 20, 2)
    ]
    seen.check(10, None)


def test_a_failed_item_of_a_stream_is_done_with(pool: procflow.Pool) -> None:
    seen = Seen()
    results, failed, values = pool.imap(f.odd_fails, range(6), progress=seen), 0, []
    while True:
        try:
            values.append(next(results))
        except StopIteration:
            break
        except ValueError:
            failed += 1
    assert (values, failed) == ([0, 2, 4], 3)
    seen.check(6, 6)


def test_a_stream_that_is_left_reports_its_end(pool: procflow.Pool) -> None:
    seen = Seen()
    results = pool.imap(f.double, itertools.count(), progress=seen)
    assert list(itertools.islice(results, 5)) == [0, 2, 4, 6, 8]
    results.close()
    seen.check(5, None)


def test_a_wait_that_times_out_counts_nothing(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    seen = Seen()
    with procflow.Pool(1) as pool:
        results = pool.imap(f.wait_for, [str(gate)], progress=seen)
        with pytest.raises(procflow.TimeoutError):
            results.next(0.01)
        assert not seen
        gate.touch()
        assert list(results) == [str(gate)]
        seen.check(1, 1)


def test_false_shows_nothing_and_the_unknown_is_refused_before_anything_runs(
    pool: procflow.Pool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pool.map(f.double, [1], progress=False) == list(pool.imap(f.double, [1], progress=None)) == [2]
    for call in (pool.map, pool.imap):
        with pytest.raises(ValueError, match="unknown progress 'loud'"):
            call(f.double, [1], progress="loud")  # type: ignore[arg-type]
    assert capsys.readouterr() == ("", "")


# -- text ----


def test_text_says_how_far_how_fast_and_how_long() -> None:
    assert describe(40, 100, 2.0, final=False) == "40 of 100 (40 %), 20.0/s, 3 s left"
    assert describe(100, 100, 4.0, final=True) == "100 of 100 (100 %), 25.0/s, took 4.0 s"
    assert describe(7, None, 2.0, final=False) == "7 done, 3.5/s"
    assert describe(0, 10, 0.0, final=False) == "0 of 10 (0 %), 0/s"
    assert describe(0, 0, 0.0, final=True) == "0 of 0 (100 %), 0/s, took 0.0 s"


def test_text_rewrites_its_line_on_a_terminal_and_is_sparing_in_a_file() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    reports = [Report(done, 100, done == 100) for done in range(0, 101)]
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        show = Text(stream)
        for report in reports:
            show(report)
    assert terminal.getvalue().count("\r") == 101
    assert terminal.getvalue().count("\n") == 1
    assert [line.split(" ")[0] for line in file.getvalue().splitlines()] == [str(n) for n in range(10, 101, 10)]


# -- the real displays ----


@pytest.mark.parametrize("name", ["tqdm", "rich", "text", True])
def test_the_displays_show_the_end(name: Any, capfd: pytest.CaptureFixture[str]) -> None:
    if name != "text":
        pytest.importorskip("tqdm" if name is True else name)
    with procflow.Pool(2) as pool:
        assert pool.map(f.double, range(50), progress=name) == list(range(0, 100, 2))
        assert sorted(pool.imap_unordered(f.double, iter(range(30)), progress=name)) == list(range(0, 60, 2))
    written = "".join(capfd.readouterr())
    assert "50/50" in written or "50 of 50" in written
    assert "30" in written
    gc.collect()


def run(program: str, path: Path) -> subprocess.CompletedProcess[str]:
    python_path = os.pathsep.join([str(path), str(Path(procflow.__file__).parents[1])])
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": python_path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(("name", "package"), [("True", "tqdm"), ("'rich'", "rich")])
def test_a_missing_package_is_named_with_what_brings_it(name: str, package: str, tmp_path: Path) -> None:
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError('gone', name={package!r})")
    done = run(f"from procflow import Pool\nPool(engine='serial').map(abs, [1], progress={name})", tmp_path)
    assert done.returncode == 1
    assert "pip install 'procflow[progress]'" in done.stderr


def test_nothing_is_imported_for_a_display_that_nobody_asked_for(tmp_path: Path) -> None:
    done = run(
        "import sys\nfrom procflow import Pool\n"
        "with Pool(engine='serial') as pool:\n    pool.map(abs, [1]); list(pool.imap(abs, [1]))\n"
        "assert not {'tqdm', 'rich', 'procflow.observe.progress'} & set(sys.modules)\n",
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
