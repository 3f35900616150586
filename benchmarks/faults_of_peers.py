"""What do other pools do when something goes wrong? Every scenario with every pool, judged from outside.

    python benchmarks/faults_of_peers.py --json docs/design/data/faults_of_peers.json       all of them
    python benchmarks/faults_of_peers.py --peers procflow,loky --scenarios storm,crashes
    python benchmarks/faults_of_peers.py --cell NAME SCENARIO                               one, in this process

Each runs in a process of its own, in a session of its own. It passes if it ends by itself, with the outcome that the
scenario asks for, and no process that it has started is there afterwards. The worst of several runs counts.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from _fault_peers import POOLS, NotOfferedError
from _fault_scenarios import SCENARIOS, Failed, Scenario, told
from _hosts import MARK, marked

LIMIT = 60.0  # seconds for a scenario, which may wait for several things that never come
GRACE = 2.0  # seconds that what is left behind has to end
ORDER = ("passes", "not offered", "leaks", "wrong", "breaks", "hangs")  # the worst is last
FLAWS = ("Traceback", "Process ")  # on standard error after Ctrl-C: what workers print


def run_cell(name: str, scenario: Scenario) -> int:
    """Run one scenario in this process, and print what came of it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever has started this may ignore it
    verdicts = os.fdopen(os.dup(1), "w")
    peer, wrapper, _ = POOLS[name]
    verdict, detail = "passes", ""
    try:
        scenario.run(lambda initializer=None: wrapper(peer(2), initializer))
    except Failed as failed:
        verdict, detail = failed.verdict, failed.detail
    except NotOfferedError:
        verdict, detail = "not offered", ""
    except Exception as error:  # noqa: BLE001 - the library's, of whatever kind
        verdict, detail = "breaks", told(error)
    verdicts.write(json.dumps([verdict, detail]) + "\n")
    verdicts.flush()
    if verdict != "passes":
        os._exit(0)  # nobody asks how it ends after that
    return 0


def judge(name: str, scenario: Scenario) -> tuple[str, str]:
    """Run one scenario in a process of its own; return the verdict, and what was seen."""
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    process = subprocess.Popen(
        [sys.executable, __file__, "--cell", name, scenario.name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, MARK: mark},
        start_new_session=True,
    )
    try:
        verdict = _watch(process, scenario)
        if verdict[0] == "passes":
            verdict = _look_for_leftovers(mark) or verdict
        return verdict
    finally:
        _end(process, mark)


def _watch(process: subprocess.Popen[bytes], scenario: Scenario) -> tuple[str, str]:
    lines = _Lines(process, time.monotonic() + LIMIT)
    first = lines.next()
    if scenario.act:
        if first != "ready":
            return tuple(json.loads(first)) if first else ("hangs", "it does not come to its test")  # type: ignore[return-value]
        if scenario.act == "kill":
            process.kill()
            process.wait()
            return "passes", ""
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            return "hangs", "the program does not end"
        assert process.stderr is not None
        os.set_blocking(process.stderr.fileno(), False)
        printed = (process.stderr.read() or b"").decode(errors="replace")
        count = printed.count("Traceback")
        return ("passes", "") if count <= 1 else ("wrong", f"prints {count} tracebacks")
    if first is None:
        code = process.poll()
        return ("hangs", "it never ends") if code is None else ("breaks", f"the program ends with exit code {code}")
    verdict, detail = json.loads(first)
    if verdict == "passes":
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            return "hangs", "the program does not end"
    return verdict, detail


class _Lines:
    """What a process prints, a line at a time, also while others hold its output open."""

    def __init__(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        self._process, self._deadline, self._got = process, deadline, b""

    def next(self) -> str | None:
        """The next line; None if it ended without, or it is too late."""
        output = self._process.stdout
        assert output is not None
        while b"\n" not in self._got:
            readable, _, _ = select.select([output], [], [], 0.1)
            if readable:
                data = os.read(output.fileno(), 65536)
                if not data:
                    self._process.wait()
                    return None
                self._got += data
            elif self._process.poll() is not None or time.monotonic() > self._deadline:
                return None
        line, _, self._got = self._got.partition(b"\n")
        return line.decode()


def _look_for_leftovers(mark: str) -> tuple[str, str] | None:
    deadline = time.monotonic() + GRACE
    while left := marked(mark):
        if time.monotonic() > deadline:
            return "leaks", f"{len(left)} processes are left"
        time.sleep(0.02)
    return None


def _end(process: subprocess.Popen[bytes], mark: str) -> None:
    """Leave nothing of it."""
    if process.poll() is None:
        process.kill()
    process.wait()
    deadline = time.monotonic() + 10.0
    while (left := marked(mark)) and time.monotonic() < deadline:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.01)
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()


def compare(names: list[str], scenarios: list[Scenario], rounds: int) -> list[dict[str, Any]]:
    """Judge every pool in every scenario, `rounds` times; print each as it comes."""
    rows = []
    for number, scenario in enumerate(scenarios, 1):
        cells = {}
        print(f"[{number}/{len(scenarios)}] {scenario.title}", flush=True)
        for name in names:
            seen: list[tuple[str, str]] = []
            for _ in range(rounds):
                seen.append(judge(name, scenario))
                if seen[-1][0] in ("not offered", "hangs"):  # there is nothing worse to be seen
                    break
            worst = max(seen, key=lambda one: ORDER.index(one[0]))
            count = sum(one[0] == worst[0] for one in seen)
            cells[name] = {"verdict": worst[0], "detail": worst[1], "seen": count, "runs": len(seen)}
            print(f"    {name:22} {worst[0]:12} {count}/{len(seen)}  {worst[1]}", flush=True)
        told_of = {key: getattr(scenario, key) for key in ("name", "title", "promise", "test")}
        rows.append({**told_of, "cells": cells})
    return rows


def version(package: str) -> str:
    return importlib.metadata.version(package) if package else f"of Python {platform.python_version()}"


def main() -> int:
    if sys.argv[1:2] == ["--cell"]:
        return run_cell(sys.argv[2], SCENARIOS[sys.argv[3]])
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", help="only these, with commas between them; else all that are installed")
    parser.add_argument("--scenarios", help="only these, with commas between them")
    parser.add_argument("--rounds", type=int, default=3, help="how often each runs; the worst counts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was seen there, too")
    options = parser.parse_args()
    names = options.peers.split(",") if options.peers else [n for n, (peer, *_) in POOLS.items() if peer.installed()]
    chosen = options.scenarios.split(",") if options.scenarios else list(SCENARIOS)
    rows = compare(names, [SCENARIOS[name] for name in chosen], options.rounds)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        found = {
            "command": "make faults",
            "date": datetime.date.today().isoformat(),
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()}, {os.cpu_count()} processors",
            "versions": {name: version(POOLS[name][2]) for name in names},
            "rows": rows,
        }
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
