"""Turn the figures into pages: docs/benchmarks/data/*.json into a table and a plot for each question.

    python benchmarks/_render.py

The overview in docs/benchmarks/index.md is written by hand but for the part between its two marks.
"""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
from _side_by_side import in_unit, times_worse

PAGES = Path(__file__).parents[1] / "docs" / "benchmarks"
BEGIN, END = "<!-- overview: made by benchmarks/_render.py -->\n", "<!-- end of the overview -->\n"
LOADS = {"load_before": "before, which is what others did", "load": "at the end"}
# Both readable on white and on near-black.
OURS, OTHERS, TEXT = "#5c6bc0", "#90a4ae", "#808890"
mpl.rcParams.update({"svg.hashsalt": "procflow", "svg.fonttype": "none", "font.size": 9})
mpl.rcParams.update({f"{part}.color": TEXT for part in ("text", "xtick", "ytick")} | {"axes.labelcolor": TEXT})


def plot(result: dict[str, Any], file: Path) -> None:
    """Draw how many times worse than procflow each is; the thin line spans the best and the worst round."""
    ratios = times_worse(result["values"], result["better"])
    own = statistics.median(next(iter(result["values"].values())))
    lower = result["better"] == "lower"
    names = list(ratios)
    figure, axes = plt.subplots(figsize=(8, 0.55 + 0.3 * len(names)))
    for place, name in enumerate(names):
        taken = result["values"][name]
        ends = sorted((value / own if lower else own / value) for value in taken if value)
        axes.barh(place, ratios[name], color=OURS if place == 0 else OTHERS, height=0.66)
        if ends:
            axes.plot([ends[0], ends[-1]], [place, place], color=TEXT, linewidth=1)
        axes.text(max([ratios[name], *ends[-1:]]), place, f"  {_ratio(ratios[name])} ", va="center")
    if max(ratios.values()) > 12:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlim(left=min(0.5, min(ratios.values()) / 2))
    axes.axvline(1, color=OURS, linewidth=0.8, linestyle=":")
    axes.margins(x=0.12)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(TEXT)
    axes.tick_params(axis="x", colors=TEXT, which="both")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"times {_worse(result)} than procflow{' (logarithmic)' if axes.get_xscale() == 'log' else ''}")
    figure.savefig(file, transparent=True, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    # Lines end in blanks as matplotlib writes them.
    file.write_text("\n".join(line.rstrip() for line in file.read_text("utf-8").splitlines()) + "\n", "utf-8")


def table(result: dict[str, Any]) -> str:
    lines = [f"| | median | min | max | rounds | times {_worse(result)} |", "| --- | --: | --: | --: | --: | --: |"]
    for name, ratio in times_worse(result["values"], result["better"]).items():
        taken = result["values"][name]
        figures = [in_unit(value, result["unit"]) for value in (statistics.median(taken), min(taken), max(taken))]
        lines.append(f"| {' | '.join([name, *figures, str(len(taken)), _ratio(ratio)])} |")
    lines += [f"| {name} | no figure: {_cell(why)} | | | | |" for name, why in result["failed"].items()]
    text = "\n".join(lines) + "\n"
    if result.get("absent"):
        text += "\nTook no part: " + "; ".join(f"{name} ({why})" for name, why in result["absent"].items()) + ".\n"
    if result.get("fewer"):
        text += "\nRan fewer items, as they take long: "
        text += ", ".join(f"{name} ({count:,})" for name, count in result["fewer"].items()) + ".\n"
    return text


def page(name: str, data: dict[str, Any]) -> str:
    """Write a benchmark's page, and its plots beside it."""
    title, _, rest = data["about"].strip().partition("\n")
    machine = data["machine"]
    text = f"# {title}\n\n{rest.strip()}\n" if rest.strip() else f"# {title}\n"
    for number, result in enumerate(data["results"], 1):
        text += f"\n## {result['question'][0].upper()}{result['question'][1:]}\n\n"
        if not result["values"]:
            text += table(result)
            continue
        plot(result, PAGES / f"{name}-{number}.svg")
        text += f"![How many times worse each is]({name}-{number}.svg)\n\n{table(result)}"
    load = [f"{machine[key][0]:.1f} {when}" for key, when in LOADS.items() if key in machine]
    versions = ", ".join(f"{package} {version}" for package, version in machine["versions"].items())
    text += "\n## On what, and how\n\n"
    text += f"- {machine['processor']}, {machine['cpus']} CPUs, {machine['platform']}\n"
    text += f"- Python {machine['python'].split()[0]}; {versions}\n"
    text += f"- load average over a minute: {', '.join(load)}\n\n"
    text += f"```sh\n{machine['command']}\n```\n"
    return text


def overview(pages: dict[str, dict[str, Any]]) -> str:
    """One line for each question: procflow, and how the standard library's pools and the best peer compare."""
    lines = [
        "| question | procflow | multiprocessing.Pool | ProcessPoolExecutor | best peer |",
        "| --- | --: | --: | --: | --: |",
    ]
    for name, data in pages.items():
        for result in data["results"]:
            if "procflow" not in result["values"]:
                continue
            ratios = times_worse(result["values"], result["better"])
            # Two bare pipes are a floor, not a pool.
            others = {
                peer: ratio for peer, ratio in ratios.items() if peer not in ("procflow", "two bare pipes")
            }  # fmt: skip
            best = min(others, key=lambda peer: others[peer], default=None)
            own = in_unit(statistics.median(result["values"]["procflow"]), result["unit"])
            cells = [f"[{result['question']}]({name}.md)", own]
            cells += [_cited(ratios, result, peer) for peer in ("multiprocessing.Pool", "ProcessPoolExecutor")]
            cells.append(f"{_ratio(others[best])} {best}" if best else "")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cited(ratios: dict[str, float], result: dict[str, Any], peer: str) -> str:
    if peer in ratios:
        return _ratio(ratios[peer])
    return "gave up" if peer in result["failed"] else ""


def _ratio(value: float) -> str:
    return f"{value:.0f} x" if value >= 20 else f"{value:.1f} x" if value >= 3 else f"{value:.2f} x"


def _worse(result: dict[str, Any]) -> str:
    if result["unit"] == "s":
        return "slower"
    return "worse" if result["better"] == "higher" else "more"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "/")


def main() -> None:
    pages = {file.stem: json.loads(file.read_text("utf-8")) for file in sorted((PAGES / "data").glob("*.json"))}
    for old in PAGES.glob("*-[0-9].svg"):
        old.unlink()
    for name, data in pages.items():
        (PAGES / f"{name}.md").write_text(page(name, data), "utf-8")
    index = PAGES / "index.md"
    before, _, rest = index.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    index.write_text(f"{before}{BEGIN}\n{overview(pages)}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
