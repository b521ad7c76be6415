"""Implements ``prunebench plot``: runs as a picture for a paper."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from prunebench.errors import Parser
from prunebench.reports.front import COSTS
from prunebench.reports.plot.draw import KINDS, plot
from prunebench.reports.plot.pareto import Cost
from prunebench.reports.table import add_runs


def main(words: Sequence[str]) -> int:
    """Draws the plot and prints its path; returns the exit code.

    Raises:
        PrunebenchError: there is nothing to plot, matplotlib is missing, or the file cannot be
            written.
    """
    asked = _parser().parse_args(words)
    path = asked.out or Path(f"{asked.kind}.svg")
    plot(asked.runs, asked.kind, path, Cost(asked.cost, asked.batch), published=asked.published)
    sys.stdout.write(f"{path}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="prunebench plot",
        description="Draws runs as a plot of one column's width (3.3 in). "
        + "; ".join(f"{kind}: {what}" for kind, what in KINDS.items()),
        epilog="Needs matplotlib: pip install 'prunebench[plot]'",
    )
    add_runs(parser)
    parser.add_argument("--kind", choices=KINDS, default="pareto", help="default: pareto")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help=".svg, .pdf or .png")
    parser.add_argument(
        "--cost", choices=COSTS, default="macs", help="of --kind pareto (default: macs)"
    )
    parser.add_argument(
        "--batch", type=int, default=1, help="of --cost latency: images per pass (default: 1)"
    )
    parser.add_argument(
        "--published",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="of --kind pareto: with published points of the same networks and data",
    )
    return parser
