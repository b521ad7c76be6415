"""Writes the README's results from the committed reports; ``--check`` only compares."""

import argparse
import sys
from pathlib import Path

from prunebench.reports.table import render

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- results: scripts/reproduce/readme.py -->\n", "<!-- end of results -->\n"


def main() -> int:
    """Returns 1 if ``--check`` finds that the README is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    path = ROOT / "README.md"
    text = path.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    parts = []
    for about in sorted((ROOT / "outputs" / "reference").glob("*/README.md")):
        parts.append(about.read_text() + "\n" + render([about.parent], "markdown"))
    fresh = before + BEGIN + "\n" + "\n".join(parts) + "\n" + END + after
    if check:
        return int(fresh != text)
    path.write_text(fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main())
