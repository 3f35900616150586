"""The page of a recorded run in a real browser: it draws all lanes, light and dark, and runs nothing of the user's."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from procflow.observe.audience import Subscription
from procflow.observe.events import (
    Event,
    PacketDone,
    PacketSent,
    TasksSubmitted,
    WorkerEnded,
    WorkerStarted,
    WorkerStarting,
)
from procflow.observe.recording import Run, page_of

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DEADLOCK = 100.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on this machine"),
]


def run_of(workers: int, packets: int, name: str = "work") -> Run:
    """Return a run in which each packet takes a millisecond, and one worker dies."""
    events: list[Event] = []
    for worker in range(workers):
        events += [WorkerStarting(0.0, worker, worker), WorkerStarted(0.05, worker, worker)]
    events.append(TasksSubmitted(0.1, 1, 0, packets * 10, name))
    for n in range(packets):
        begin = 0.1 + n // workers * 1.2e-3
        events.append(PacketSent(begin, n % workers, n, 1, n * 10, 10))
        events.append(PacketDone(begin + 1e-3, n % workers, n, 1, n * 10, 10, 1e-3))
    events.append(WorkerEnded(0.15, 0, 0, 41, -9, "died"))

    def subscribe(callback: object) -> Subscription:
        return Subscription(lambda: None)

    run = Run(subscribe)
    run.events = events
    return run


def dump(page: Path, *options: str) -> str:
    """Return the document as the browser has it when its scripts have run."""
    assert BROWSER is not None
    done = subprocess.run(
        [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
         "--no-first-run", "--disable-component-update", "--disable-sync", f"--user-data-dir={page.parent / 'profile'}",
         "--virtual-time-budget=5000", "--window-size=1200,900", *options, "--dump-dom", page.as_uri()],
        stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", check=True, timeout=DEADLOCK,
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize(("workers", "packets"), [(3, 10), (64, 1000), (2, 100_000)])
def test_every_lane_is_drawn(workers: int, packets: int, tmp_path: Path) -> None:
    page = tmp_path / "run.html"
    run_of(workers, packets).save(page)
    found = dump(page)
    assert f'data-lanes="{workers}"' in found
    drawn = re.search(r'data-drawn="(\d+)"', found)
    assert drawn is not None
    assert min(packets, workers) < int(drawn[1]) < 20_000  # what shares a pixel is drawn once
    assert f"{packets * 10:,}" in found
    assert found.count("<tr>") == workers + 1


def test_what_the_user_has_named_is_shown_and_not_run(tmp_path: Path) -> None:
    page = tmp_path / "run.html"
    name = "<img src=x onerror=\"document.title='taken'\"></script><script>document.title='taken'</script>"
    page.write_text(page_of(run_of(1, 3, name)), encoding="utf-8")
    found = dump(page)
    assert "<title>A recorded run</title>" in found
    assert "&lt;img src=x" in found
    assert "data-drawn=" in found


def test_it_is_dark_where_the_user_wants_it_dark(tmp_path: Path) -> None:
    page = tmp_path / "run.html"
    run_of(3, 10).save(page)
    assert BROWSER is not None
    pictures = []
    for options in ([], ["--blink-settings=preferredColorScheme=0", "--force-dark-mode"]):
        picture = tmp_path / f"picture{len(pictures)}.png"
        dump(page, f"--screenshot={picture}", *options)
        pictures.append(picture.read_bytes())
    assert pictures[0] != pictures[1]
