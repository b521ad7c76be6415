"""``prunebench-table``: runs side by side, with their spread over seeds and published figures."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from prunebench.errors import DataError, PrunebenchError
from prunebench.options import conf_dir
from prunebench.reports.cells import panels, single, tabulate
from prunebench.reports.formats import csv_text, latex, markdown, rich_text
from prunebench.reports.load import load_runs
from prunebench.reports.published import beside, load_published
from prunebench.reports.rows import rows_of

FORMATS = ("rich", "markdown", "latex", "csv")
SUFFIXES = {".md": "markdown", ".tex": "latex", ".csv": "csv"}
#: characters per line where there is no terminal to ask
FILE_WIDTH = 120


def main(argv: Sequence[str] | None = None) -> int:
    """Prints or writes the table; returns the exit code, 2 for a mistake of the user's."""
    options = _parser().parse_args(argv)
    form = options.format or (
        SUFFIXES.get(options.out.suffix, "markdown") if options.out else "rich"
    )
    try:
        text = render(options.runs, form, published=options.published, to_file=bool(options.out))
        if options.out:
            _write(options.out, text)
    except PrunebenchError as error:
        sys.stderr.write(f"prunebench-table: {error}\n")
        return 2
    if not options.out:
        _print(text)
    return 0


def render(
    runs: Sequence[str | os.PathLike[str]],
    form: str,
    *,
    published: bool = True,
    to_file: bool = False,
) -> str:
    """Returns the table of all runs at the paths `runs`.

    Args:
        runs: record files or folders.
        form: one of `FORMATS`.
        published: whether published figures for the same networks and data stand beside.
        to_file: whether the text goes to a file, so that the terminal's width does not matter.

    Raises:
        DataError: there is no run, or a record is damaged.
    """
    reports, failures = load_runs(runs)
    rows = rows_of(reports, failures)
    if published:
        rows += beside(rows, load_published(conf_dir() / "published"))
        rows.sort(key=lambda row: (row.model, row.dataset, bool(row.source)))
    if form == "csv":
        return csv_text(rows)
    if form != "rich":
        write = markdown if form == "markdown" else latex
        return write(tabulate(rows, failures))
    tall = len(rows) == 1 and rows[0].seeds
    tables = [single(rows[0], failures)] if tall else panels(rows, failures)
    fixed = to_file or not sys.stdout.isatty()
    return rich_text(tables, width=FILE_WIDTH if fixed else None, terminal=False if fixed else None)


def print_table(runs: Sequence[str | os.PathLike[str]]) -> None:
    """Prints the table of `runs` alone, without published figures, for people."""
    _print(render(runs, "rich", published=False))


def _print(text: str) -> None:
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal without ± shows ? instead
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"--out {path} cannot be written ({error.strerror})") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="prunebench-table",
        description=(
            "Compares runs: accuracy, parameters, MACs and latency before and after, as mean and "
            "standard deviation over seeds, beside published figures with their sources."
        ),
    )
    parser.add_argument(
        "runs",
        nargs="*",
        default=["outputs"],
        help="report files, or folders searched with their subfolders (default: outputs)",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="default: rich, or what the suffix of --out says (.md .tex .csv)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write there instead of printing")
    parser.add_argument(
        "--published",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="set published figures for the same networks and data beside the runs",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
