"""Writes the committed reports' tables, README's result and picture; ``--check`` only compares.

Every folder of ``outputs/reference`` that has a README.md (a title, the command, what to know) gets
a table.md. The README shows the four columns that matter most of one of them; docs/results.md
names all. ``outputs/reference/results`` has all rows of all tables, one CSV for each data set.
"""

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path

from prunebench.reports.asked import Asked
from prunebench.reports.load import load_runs
from prunebench.reports.plain import as_csv, of_settings
from prunebench.reports.plot.draw import plot
from prunebench.reports.plot.pareto import Cost
from prunebench.reports.rows import Row, rows_of
from prunebench.reports.table import render

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "outputs" / "reference"
SHOWN = "fpgm_resnet20"
#: folders for which methods are also compared in pairs
COMPARED = (
    "criteria_resnet20", "criteria_resnet20_full", "criteria_resnet20_macs70", "criteria_resnet56",
    "controls_resnet20", "controls_digits",
)  # fmt: skip
#: the folders whose runs the README's picture shows; a test compares it
PICTURED = ("criteria_resnet56", "criteria_resnet56_macs70")
PICTURE = "pareto.svg"
COLUMNS = ("method", "finetuned", "drop", "macs")
RESULTS = """# Results

All committed results. Each table states its command and its notes, and lies in one folder with its
reports. The rows of all tables are also [one CSV per data set](../outputs/reference/results).

"""
BEGIN, END = "<!-- results: scripts/reproduce/readme.py -->\n", "<!-- end of results -->\n"


def main() -> int:
    """Writes all files; with ``--check``, returns 1 if one is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    tables, shown, named = {}, "", []
    results = ROOT / "docs" / "results.md"
    for about in sorted(REFERENCE.glob("*/README.md")):
        folder = about.parent
        page = f"{about.read_text()}\n{render([folder], 'markdown')}\n"
        tables[folder / "table.md"] = page
        link = (folder / "table.md").relative_to(ROOT)
        named.append(f"- [{title(about)}](../{link})")
        if folder.name in COMPARED:
            page = f"{about.read_text()}\n{render([folder], 'markdown', compare=True)}\n"
            tables[folder / "compare.md"] = page
            named[-1] += f", [which methods differ](../{link.with_name('compare.md')})"
        if folder.name == SHOWN:
            more = f"[All columns]({link}), [all results](docs/results.md)."
            shown = f"{about.read_text()}\n{brief(folder)}\n{more}\n"
    readme = ROOT / "README.md"
    text = readme.read_text()
    before, rest = text.split(BEGIN)
    tables[readme] = f"{before}{BEGIN}\n{shown}\n{END}{rest.split(END)[1]}"
    tables[results] = RESULTS + "\n".join(named) + "\n"
    tables |= flat()
    stale = [
        path for path, fresh in tables.items() if not path.is_file() or path.read_text() != fresh
    ]
    for path in stale:
        if check:
            print(f"{path.relative_to(ROOT)} is not up to date")
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(tables[path])
    if not check:
        plot([REFERENCE / name for name in PICTURED], "pareto", ROOT / "docs" / PICTURE, Cost())
    return int(check and bool(stale))


def brief(folder: Path) -> str:
    """Returns the most important columns, as Markdown."""
    return render([folder], "markdown", asked=Asked(columns=COLUMNS))


def flat() -> dict[Path, str]:
    """Returns, for each data set, a CSV of all settings of all tables."""
    found: dict[str, list[tuple[str, Row]]] = defaultdict(list)
    for about in sorted(REFERENCE.glob("*/README.md")):
        runs = load_runs([about.parent])
        for row in rows_of(runs.reports, runs.failures):
            found[row.dataset].append((about.parent.name, row))
    files = {}
    for dataset, rows in found.items():
        lines = of_settings([row for _, row in rows])
        named = [{"table": name} | line for (name, _), line in zip(rows, lines, strict=True)]
        name = re.sub(r"\W+", "_", dataset).strip("_")
        files[REFERENCE / "results" / f"{name}.csv"] = as_csv(named)
    return files


def title(about: Path) -> str:
    """Returns the bold words at the beginning of a folder's README.md."""
    return about.read_text().split("**")[1]


if __name__ == "__main__":
    sys.exit(main())
