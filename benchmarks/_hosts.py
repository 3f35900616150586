"""One process for each peer: it opens the pool, runs the measured loop and says a figure; it is killed if it doesn't.

    python benchmarks/tiny_map.py                     asks
    python benchmarks/tiny_map.py --host NAME N       opens NAME's pool of N workers, and answers on its output

So peers do not meet each other's threads, signal handlers and memory, and one that hangs costs its own figure only.
Every process below a host carries the host's mark in its environment, by which the last of them is found and killed.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _peers import ALL, BY_NAME, Peer
from _side_by_side import GaveUpError, Measure, Result, arguments, compare, report

MARK = "PROCFLOW_BENCHMARK_HOST"
CLOSING = 10.0  # seconds that a peer has to close its pool, before it is killed
QUICK = 20  # --quick divides the number of items by this, at most down to LEAST
WARM = 20  # and so does the warm-up
LEAST = 20
LONG = 3.0  # seconds; who would take longer for a figure per item gets fewer items, as the warm-up tells


@dataclass(frozen=True)
class Question:
    """What is asked of each peer that has the methods it needs."""

    title: str
    measure: Callable[..., float]  # (peer, count, **settings) in the peer's process
    count: int  # how many items, calls, ...
    needs: str = "map"  # a method of Peer
    workers: int = 2
    settings: dict[str, Any] = field(default_factory=dict)
    tries: tuple[int, ...] = ()  # chunksizes: the best of them is run as one more contestant
    tried: tuple[str, ...] | None = None  # whose best chunksize is looked for; None: everybody's but procflow's
    without: dict[str, str] = field(default_factory=dict)  # who is left out, and why
    only: tuple[str, ...] | None = None
    fresh: bool = False  # a new process for each measurement
    unit: str = "s"
    better: str = "lower"
    limit: float = 60.0  # seconds of one measurement


class Host:
    """A peer's process, as the asking side sees it; started when first asked."""

    _number = 0

    def __init__(self, peer: type[Peer], workers: int) -> None:
        self.peer, self.workers = peer, workers
        self._process: subprocess.Popen[bytes] | None = None
        self._mark = ""

    def ask(self, order: dict[str, Any], limit: float) -> float:
        """Return the figure.

        Raises:
            GaveUpError: The peer raised, ended, or did not answer within `limit` seconds.
        """
        if self._process is None:
            self._start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
            answer = json.loads(self._line(process, time.monotonic() + limit))
        except (OSError, ValueError, GaveUpError) as error:
            self.kill()
            raise GaveUpError(str(error)) from error
        if "error" in answer:
            self.kill()
            raise GaveUpError(answer["error"])
        return float(answer["value"])

    def close(self) -> None:
        """Let it close its pool; then leave no process of it."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(CLOSING)
        except (OSError, subprocess.TimeoutExpired):
            pass
        self.kill()

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.kill()
        process.wait()
        deadline = time.monotonic() + CLOSING
        while (left := marked(self._mark)) and time.monotonic() < deadline:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.01)  # a killed process takes a moment to be gone, and may have started another one before
        assert process.stdout is not None
        process.stdout.close()

    def _start(self) -> None:
        Host._number += 1
        self._mark = f"{os.getpid()}-{Host._number}"
        self._process = subprocess.Popen(
            [sys.executable, sys.argv[0], "--host", self.peer.name, str(self.workers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("BENCHMARK_STDERR") else subprocess.DEVNULL,
            env={**os.environ, MARK: self._mark},
            start_new_session=True,
        )

    def _line(self, process: subprocess.Popen[bytes], deadline: float) -> bytes:
        assert process.stdout is not None
        got = b""
        while not got.endswith(b"\n"):
            # Its workers may hold the output open after its death, so its end is looked for, too.
            readable, _, _ = select.select([process.stdout], [], [], min(0.2, max(0, deadline - time.monotonic())))
            if readable:
                data = os.read(process.stdout.fileno(), 65536)
                if not data:
                    raise GaveUpError("its process ended")
                got += data
            elif process.poll() is not None:
                raise GaveUpError(f"its process ended with exit code {process.returncode}")
            elif time.monotonic() >= deadline:
                raise GaveUpError("no answer within the time limit")
        return got


def marked(mark: str) -> list[int]:
    """Return the processes that carry this mark; none where there is no /proc."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # gone, a zombie, or another user's
            pass
    return found


class Contestant:
    """A peer with its settings: what `compare` calls."""

    def __init__(self, host: Host, index: int, question: Question, count: int, settings: dict[str, Any]) -> None:
        self._host, self._index, self._question = host, index, question
        self.count, self._settings = count, settings

    def __call__(self) -> float:
        return self._ask(self.count)

    def warm_up(self) -> float:
        """Run few items, after one run that pays for what happens once; leave the slow with fewer than the others."""
        if self._question.fresh:
            return 0.0
        few = min(self.count, max(LEAST, self.count // WARM))
        self._ask(few)
        if self._question.unit != "s":
            return 0.0
        begin = time.perf_counter()
        self._ask(few)
        seconds = (time.perf_counter() - begin) * self.count / few
        if seconds > LONG:
            self.count = max(few, int(self.count * LONG / seconds))
        return 0.0

    def _ask(self, count: int) -> float:
        order = {"question": self._index, "count": count, "settings": self._settings}
        try:
            return self._host.ask(order, self._question.limit)
        finally:
            if self._question.fresh:
                self._host.close()


def run(questions: list[Question]) -> None:
    """Ask them all, or be a host: what each benchmark's `main` is."""
    if sys.argv[1:2] == ["--host"]:
        return serve(questions, sys.argv[2], int(sys.argv[3]))
    options = arguments(sys.modules["__main__"].__doc__ or "")
    results = []
    hosts: dict[tuple[str, int], Host] = {}
    # Started hosts end like any others when a signal ends this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        for index, question in enumerate(questions):
            for key in [key for key in hosts if key[1] != question.workers]:
                hosts.pop(key).close()  # idle pools of another size would only be in the way
            results.append(_ask_all(index, question, hosts, options))
    finally:
        for host in hosts.values():
            host.close()
    report(results, options.json)
    return None


def _ask_all(index: int, question: Question, hosts: dict[tuple[str, int], Host], options: Any) -> Result:
    count = max(LEAST, question.count // QUICK) if options.quick else question.count
    count = min(count, question.count)
    contestants: dict[str, Contestant] = {}
    absent: dict[str, str] = {}
    for peer in ALL:
        why = _left_out(peer, question, options.peers)
        if why:
            absent[peer.name] = why
        if why is not None:
            continue
        host = hosts.setdefault((peer.name, question.workers), Host(peer, question.workers))
        contestants[peer.name] = Contestant(host, index, question, count, question.settings)
        tried = question.tried if question.tried is not None else set(BY_NAME) - {"procflow", "dask"}
        if question.tries and peer.name in tried:
            best = _best_chunksize(host, index, question, count)
            if best is not None:
                settings = {**question.settings, "chunksize": best}
                label = f"{peer.name}, best chunksize ({best})"
                contestants[label] = Contestant(host, index, question, count, settings)
    measures: dict[str, Measure] = {**contestants}
    result = compare(
        question.title, measures, options.rounds, unit=question.unit, better=question.better, budget=options.budget
    )
    if absent:
        print("  " + "; ".join(f"{name}: {why}" for name, why in absent.items()), flush=True)
    fewer = {name: one.count for name, one in contestants.items() if one.count < count}
    return {**result, "absent": absent, "fewer": fewer, "workers": question.workers, "count": count}


def _left_out(peer: type[Peer], question: Question, chosen: str | None) -> str | None:
    """Why it takes no part; "" where there is nothing to be said about it."""
    if chosen is not None and peer.name not in chosen.split(","):
        return ""
    if (question.only and peer.name not in question.only) or not peer.can(question.needs):
        return ""
    if peer.name in question.without:
        return f"left out: {question.without[peer.name]}"
    if not peer.installed():
        return "not installed"
    if question.workers > peer.most_workers:
        return f"left out: {question.workers} workers of it are too much for this machine"
    return None


def _best_chunksize(host: Host, index: int, question: Question, count: int) -> int | None:
    """Try each once, after one that warms up."""
    figures = {}
    for chunksize in (question.tries[0], *question.tries):
        order = {"question": index, "count": count, "settings": {**question.settings, "chunksize": chunksize}}
        try:
            figures[chunksize] = host.ask(order, question.limit)
        except GaveUpError:
            continue
    pick = min if question.better == "lower" else max
    return pick(figures, key=figures.__getitem__) if figures else None


def serve(questions: list[Question], name: str, workers: int) -> None:
    """Answer until there are no more orders: the process of one peer."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a peer prints is no answer
    peer = BY_NAME[name](workers)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            value = questions[order["question"]].measure(peer, order["count"], **order["settings"])
            answer: dict[str, Any] = {"value": value}
        except Exception as error:  # noqa: BLE001  the peer's, whatever it is
            answer = {"error": f"{type(error).__name__}: {error}"[:200]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    if "pool" in vars(peer):
        peer.close()
