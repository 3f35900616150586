"""Every benchmark has its figures, and the page and the plots that were made of them, in the site's navigation."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "benchmarks"


def test_every_benchmark_has_its_page() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8")
    for benchmark in sorted((ROOT / "benchmarks").glob("[a-z]*.py")):
        if "import Question, run" not in benchmark.read_text("utf-8"):  # it prints a table only, or has another page
            continue
        name = benchmark.stem
        page = (PAGES / f"{name}.md").read_text("utf-8")
        assert f"benchmarks/{name}.md" in navigation
        data = json.loads((PAGES / "data" / f"{name}.json").read_text("utf-8"))
        for number, result in enumerate(data["results"], 1):
            assert f"({name}-{number}.svg)" in page
            assert (PAGES / f"{name}-{number}.svg").exists()
            for contestant in [*result["values"], *result["failed"]]:
                assert f"| {contestant} |" in page
