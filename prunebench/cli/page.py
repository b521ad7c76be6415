"""Implements ``prunebench page``: runs as one HTML file that works offline."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from prunebench.errors import Parser
from prunebench.reports.page.write import page
from prunebench.reports.table import add_runs


def main(words: Sequence[str]) -> int:
    """Writes the page and prints its path; returns the exit code.

    Raises:
        PrunebenchError: there is no run, or the file cannot be written.
    """
    asked = _parser().parse_args(words)
    page(asked.runs, asked.out)
    sys.stdout.write(f"{asked.out}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="prunebench page",
        description=(
            "Writes runs to one HTML file that needs no server or network: a table to sort and "
            "filter, the Pareto plot with published points, and for each run its configuration, "
            "layers, curves and environment."
        ),
    )
    add_runs(parser)
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("runs.html"), metavar="FILE", help="an .html"
    )
    return parser
