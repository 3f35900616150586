"""`python -m procflow doctor`: arguments in, a report out, as text or JSON, and an exit code."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from procflow.doctor import machine, probes, runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from procflow.doctor.machine import Machine
    from procflow.doctor.runs import Outcome

__all__ = ["main"]

LIMIT = 60.0
WIDTH = 24


def main(arguments: Sequence[str]) -> int:
    """Print the report.

    Returns:
        0 if procflow works here, 1 if a part of the self-test has failed.
    """
    parser = argparse.ArgumentParser(
        prog="python -m procflow doctor",
        description="Tell what this machine offers, test procflow on it under each start method, and measure how fast "
        "it is. Nothing is sent anywhere. The exit code is 1 if a test has failed.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--limit",
        type=_seconds,
        default=LIMIT,
        metavar="SECONDS",
        help="how long the tests of one start method may take, and the measurements (default: %(default)g)",
    )
    options = parser.parse_args(arguments)
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a path may hold what a terminal can't show
    return _as_json(options.limit) if options.json else _as_text(options.limit)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 86400:
        raise argparse.ArgumentTypeError(f"a positive number of seconds, at most a day, not {text}")
    return seconds


def _as_json(limit: float) -> int:
    facts = machine.examine()
    tested = {method: runs.run_checks(method, limit, probes.CHECKS) for method in facts.start_methods}
    measured = runs.run_measures(limit, probes.MEASURES)
    ok = not any(outcome.error for outcomes in (*tested.values(), measured) for outcome in outcomes)
    report = {
        "ok": ok,
        "machine": asdict(facts),
        "self_test": {
            method: [{"check": one.name, "seconds": one.value, "error": one.error} for one in outcomes]
            for method, outcomes in tested.items()
        },
        "speed": {
            one.name: {"value": one.value, "unit": probes.MEASURES[one.name][0], "error": one.error} for one in measured
        },
    }
    print(json.dumps(report, indent=2))
    return 0 if ok else 1


def _as_text(limit: float) -> int:
    """Print each part when it is known: the self-test takes some seconds."""
    facts = machine.examine()
    for line in _machine_lines(facts):
        print(line, flush=True)
    failed: list[tuple[str, Outcome]] = []
    print("\nSelf-test", flush=True)
    for method in facts.start_methods:
        outcomes = runs.run_checks(method, limit, probes.CHECKS)
        failed += [(method, outcome) for outcome in outcomes if outcome.error]
        for outcome in outcomes:
            took = "FAILED" if outcome.value is None else f"ok {1000 * outcome.value:8.0f} ms"
            print(f"  {method:12}{outcome.name:{WIDTH}}{took}", flush=True)
    print("\nSpeed, the median of some rounds", flush=True)
    for outcome in runs.run_measures(limit, probes.MEASURES):
        unit = probes.MEASURES[outcome.name][0]
        value = "FAILED" if outcome.value is None else f"{_rounded(outcome.value):>9} {unit}"
        print(f"  {outcome.name.replace('_', ' '):{WIDTH}}{value}", flush=True)
        if outcome.error:
            failed.append(("speed", outcome))
    for where, outcome in failed:
        print(f"\nFailed: {where}, {outcome.name}\n{outcome.error}")
    print(f"\n{len(failed)} failed" if failed else "\nprocflow works here.")
    return 1 if failed else 0


def _machine_lines(facts: Machine) -> Iterator[str]:
    def line(name: str, text: str) -> str:
        return f"{name:{WIDTH - 4}}{text}"

    def limit(soft_and_hard: tuple[int | None, int | None] | None) -> str:
        if soft_and_hard is None:
            return "this system has no such limit"
        soft, hard = ("unlimited" if value is None else str(value) for value in soft_and_hard)
        return soft if soft == hard else f"{soft}, may be raised to {hard}"

    default, *others = facts.start_methods
    kernel, memory = facts.kernel, facts.memory
    yield line("procflow", facts.procflow)
    yield line("Python", f"{facts.python} ({facts.implementation}), {facts.executable}")
    yield line("System", facts.system)
    yield line("Start methods", ", ".join([f"{default} (default)", *others]))
    yield line("CPUs", f"{'?' if facts.cpus.usable is None else facts.cpus.usable}: {facts.cpus.why}")
    yield line("Memory", f"{memory.physical / 2**30:.1f} GiB")
    yield line("Big data", f"{memory.kind}, {'mapped' if memory.mapped else 'copied'} where it is read")
    yield line("Packet pipes", _yes(kernel.packet_pipes))
    yield line("pidfd, epoll", f"{_yes(kernel.pidfd)}, {_yes(kernel.epoll)}")
    yield line("Open files", limit(facts.limits.open_files))
    yield line("Processes", limit(facts.limits.processes))
    yield line("Address space", limit(facts.limits.address_space))
    yield line("Beside it", ", ".join(f"{name} {version or '-'}" for name, version in facts.beside.items()))
    for remark in facts.remarks:
        yield line("Note", remark)


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
