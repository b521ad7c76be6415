"""Writes the tables of the committed reports, and the README's results; ``--check`` only compares.

Every folder of ``outputs/reference`` that has a README.md (a title, the command, what to know) gets
a table.md. The README shows the seven columns that matter most of one of them and names the others.
"""

import argparse
import sys
from pathlib import Path

from prunebench.options import conf_dir
from prunebench.reports.columns import panels
from prunebench.reports.formats import markdown
from prunebench.reports.load import load_runs
from prunebench.reports.published import beside, load_published
from prunebench.reports.rows import rows_of
from prunebench.reports.table import render

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "outputs" / "reference"
SHOWN = "foad_resnet20"
COLUMNS = 7
BEGIN, END = "<!-- results: scripts/reproduce/readme.py -->\n", "<!-- end of results -->\n"


def main() -> int:
    """Returns 1 if ``--check`` finds that a file is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    tables, shown, named = {}, "", []
    for about in sorted(REFERENCE.glob("*/README.md")):
        folder = about.parent
        page = f"{about.read_text()}\n{render([folder], 'markdown')}\n"
        tables[folder / "table.md"] = page
        link = (folder / "table.md").relative_to(ROOT)
        if folder.name == SHOWN:
            shown = f"{about.read_text()}\n{brief(folder)}\n[All columns]({link}).\n"
        else:
            named.append(f"[{title(about)}]({link})")
    readme = ROOT / "README.md"
    text = readme.read_text()
    before, rest = text.split(BEGIN)
    results = f"{shown}\nMore, each with its command and its reports: {', '.join(named)}.\n"
    tables[readme] = f"{before}{BEGIN}\n{results}\n{END}{rest.split(END)[1]}"
    stale = [
        path for path, fresh in tables.items() if not path.is_file() or path.read_text() != fresh
    ]
    for path in stale:
        if check:
            print(f"{path.relative_to(ROOT)} is not up to date")
        else:
            path.write_text(tables[path])
    return int(check and bool(stale))


def brief(folder: Path) -> str:
    """Returns the first columns of the one network and data set in `folder`, as Markdown."""
    runs = load_runs([folder])
    rows = rows_of(runs.reports, runs.failures)
    [table] = panels(rows + beside(rows, load_published(conf_dir() / "published")), runs)
    return markdown(table.first(COLUMNS))


def title(about: Path) -> str:
    """Returns the bold words that a folder's README.md begins with."""
    return about.read_text().split("**")[1]


if __name__ == "__main__":
    sys.exit(main())
