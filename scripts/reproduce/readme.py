"""Writes the tables of the committed reports, and the README's results; ``--check`` only compares.

Every folder of ``outputs/reference`` that has a README.md (a title, the command, what to know) gets
a table.md. The README shows one of them in full and names the others.
"""

import argparse
import sys
from pathlib import Path

from prunebench.reports.table import render

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "outputs" / "reference"
IN_FULL = "criteria_resnet20"
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
        if folder.name == IN_FULL:
            shown = page
        else:
            named.append(f"[{title(about)}]({(folder / 'table.md').relative_to(ROOT)})")
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


def title(about: Path) -> str:
    """Returns the bold words that a folder's README.md begins with."""
    return about.read_text().split("**")[1]


if __name__ == "__main__":
    sys.exit(main())
