"""Measures what a table and a page of many runs cost, and how that grows with their number.

    python scripts/bench/reports.py REPORT [--runs 10 100 300 1000]

REPORT is the `report.json` of a run. It is copied as often as asked, each copy with another seed
and every fifth with another ratio. The costs are compared with parsing the same files as JSON,
which no table can avoid. CPU seconds in this process, medians of alternating runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from result import Row, arguments, by_turns, publish

from prunebench.reports.load import load_runs
from prunebench.reports.page.write import page
from prunebench.reports.table import render

ABOUT = """`prunebench table` and `prunebench page` over copies of a committed report, compared
with parsing the same files as JSON. Seconds of one thread's CPU time without the start of the
command, medians of alternating rounds."""


def copies(report: Path, folder: Path, count: int) -> None:
    """Writes runs that differ in their seed, and every fifth in a setting."""
    found = json.loads(report.read_text())
    for number in range(count):
        run = folder / f"{number // 5}-seed{number % 5}"
        run.mkdir(parents=True)
        found["seed"] = found["config"]["run"]["seed"] = number % 5
        found["config"]["budget"]["keep"] = 0.3 + (number // 5) / 1000
        (run / "report.json").write_text(json.dumps(found))


def parse(folder: Path) -> None:
    """Reads all reports as JSON, and nothing more."""
    for path in folder.rglob("report.json"):
        json.loads(path.read_bytes())


def main() -> None:
    """Measures for each number of runs."""
    parser = arguments(__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("--runs", type=int, nargs="+", default=[10, 100, 300, 1000])
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    rows: list[Row] = []
    for count in asked.runs:
        with TemporaryDirectory() as place:
            folder, path = Path(place) / "runs", Path(place) / "page.html"
            copies(asked.report, folder, count)
            works: dict[str, Callable[[], object]] = {
                "json": lambda: parse(folder),  # noqa: B023
                "table": lambda: render([folder], "markdown"),  # noqa: B023
                "page": lambda: page([folder], path),  # noqa: B023
            }
            assert len(load_runs([folder]).reports) == count
            times = {name: median(found) for name, found in by_turns(works, asked.repeats).items()}
            rows.append(
                {
                    "runs": count,
                    "JSON alone, s": times["json"],
                    "table, s": times["table"],
                    "times the time, table": times["table"] / times["json"],
                    "page, s": times["page"],
                    "times the time, page": times["page"] / times["json"],
                    "page, KiB": path.stat().st_size / 1024,
                }
            )
    publish(asked, "Tables and pages of many runs", ABOUT, rows)


if __name__ == "__main__":
    main()
