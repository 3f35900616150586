"""Put what `faults_of_peers.py` has seen into the page of faults, between its two marks."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

DESIGN = Path(__file__).parents[1] / "docs" / "design"
DATA = DESIGN / "data" / "faults_of_peers.json"
PAGE = DESIGN / "faults.md"
BEGIN, END = "<!-- what others do: begin -->", "<!-- what others do: end -->"
SYMBOLS = {"passes": "✓", "not offered": "n/a"}


def cell(found: dict[str, Any]) -> str:
    """One verdict: a mark where there is nothing to tell, else the word, how often, and what was seen."""
    verdict = found["verdict"]
    if verdict in SYMBOLS:
        return SYMBOLS[verdict]
    often = "" if found["seen"] == found["runs"] else f" ({found['seen']} of {found['runs']})"
    detail = html.escape(found["detail"], quote=False).replace("|", "\\|").replace("`", "'").replace("*", "\\*")
    return f"**{verdict}**{often}" + (f"<br><small>{detail}</small>" if detail else "")


def render(data: dict[str, Any]) -> str:
    """Return the table, with what it was made of."""
    names = list(data["versions"])
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items() if name != "procflow")
    lines = [
        f"`{data['command']}`, {data['date']}: Python {data['python']} on {data['system']}; {versions}.",
        "Two workers each. ✓: as asked for. n/a: it has nothing for this. The worst of several runs counts.",
        "",
        "| Scenario | Asked for | " + " | ".join(names) + " |",
        "|---|---|" + "---|" * len(names),
    ]
    for row in data["rows"]:
        cells = " | ".join(cell(row["cells"][name]) for name in names)
        lines.append(f"| {row['title']} | {row['promise']} | {cells} |")
    passed = [f"{name} {sum(row['cells'][name]['verdict'] == 'passes' for row in data['rows'])}" for name in names]
    lines += ["", f"Passed, of {len(data['rows'])}: {', '.join(passed)}."]
    return "\n".join(lines)


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    table = render(json.loads(DATA.read_text(encoding="utf-8")))
    PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
