"""Implements ``prunebench reproduce ROW``: the command nearest to a published row."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from prunebench.errors import DataError, Parser, require
from prunebench.published.nearest import WIDTHS, command
from prunebench.published.record import Published, find
from prunebench.reports.cells import cost, points
from prunebench.reports.columns import panels
from prunebench.reports.load import load_runs
from prunebench.reports.published import as_row
from prunebench.reports.rows import rows_of
from prunebench.reports.table import print_text
from prunebench.reports.terminal import rich_text

#: beginnings of settings that do not change what is run
NOT_CHANGING = (
    "dataset.root",
    "dataset.path",
    "dataset.download",
    "run.",
    "tracker",
    "baseline.store",
)


def main(words: Sequence[str]) -> int:
    """Prints the command; with ``--go`` runs it and shows its result beside the row.

    Raises:
        PrunebenchError: there is no such row, no command comes near it, or the run left no report.
    """
    asked = _parser().parse_intermixed_args(words)
    for word in asked.settings:
        require("=" in word, f"'{word}' is not key=value; see prunebench reproduce --help")
    row = find(asked.row)
    typed = {word.partition("=")[0] for word in asked.settings}
    nearest = [word for word in command(row) if word.partition("=")[0] not in typed]
    run = [*nearest, *asked.settings]
    print_text("\n".join([*about(row), shlex.join(["prunebench", *run])]) + "\n")
    if not asked.go:
        return 0
    done = subprocess.run([sys.executable, "-m", "prunebench", *run, f"name={row.id}"])
    if done.returncode or "run.dry_run=true" in asked.settings:
        return done.returncode
    changed = [word for word in asked.settings if not word.startswith(NOT_CHANGING)]
    print_text(side_by_side(row, newest(row, asked.settings), changed))
    return 0


def about(row: Published) -> list[str]:
    """Returns shell comments on what is published and how near the command comes."""
    shown = as_row(row, row.model, row.dataset)
    figures = {
        "top-1 %": points(shown.top1.get("published")),
        "MACs": cost(shown.macs),
        "params": cost(shown.params),
    }
    told = ", ".join(f"{name} {text}" for name, text in figures.items() if text)
    how = "cut as published" if row.id in WIDTHS else "at the printed share of its cost"
    return [
        f"# {row.method} of {row.model} on {row.dataset}: {told}",
        f"# {row.source}; {row.convention}",
        f"# nearest: our network, criterion and recipe, {how}",
    ]


def newest(row: Published, settings: Sequence[str]) -> Path:
    """Returns the newest report of the row's runs.

    Raises:
        DataError: there is none.
    """
    places = [word.partition("=")[2] for word in settings if word.startswith("run.outputs=")]
    folder = Path([*["outputs"], *places][-1]) / row.id
    reports = sorted(folder.rglob("report.json"))
    if not reports:
        raise DataError(f"no report of {row.id} in {folder}")
    return reports[-1]


def side_by_side(row: Published, report: Path, changed: Sequence[str]) -> str:
    """Returns a table with the run, and the published row below it."""
    runs = load_runs([report])
    ours = rows_of(runs.reports, [])
    if changed:
        runs.elsewhere = [f"Not as published, as you typed: {' '.join(changed)}"]
    return rich_text(panels([*ours, as_row(row, ours[0].model, ours[0].dataset)], runs))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="prunebench reproduce",
        description=(
            "Prints the command closest to a published row: network, criterion, and how much is "
            "removed, by its widths or its MACs."
        ),
        epilog="prunebench published lists the rows. Papers' recipes differ; prunebench --help.",
    )
    parser.add_argument("row", metavar="ROW", help="id of a published row")
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="key=value",
        help="added to the command: dataset.root=FOLDER, or recipe=short for a shortened run",
    )
    parser.add_argument(
        "--go", action="store_true", help="run the command and compare the result with the row"
    )
    return parser
