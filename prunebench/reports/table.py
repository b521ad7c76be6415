"""``prunebench-table``: runs side by side, with their spread over seeds and published figures."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from prunebench.errors import DataError, PrunebenchError
from prunebench.reports.columns import Table, panels, single, tabulate
from prunebench.reports.compare import compared
from prunebench.reports.formats import latex, markdown
from prunebench.reports.load import load_runs
from prunebench.reports.plain import csv_of_runs, csv_of_settings, csv_of_table
from prunebench.reports.published import beside, elsewhere
from prunebench.reports.rows import rows_of
from prunebench.reports.terminal import rich_text

FORMATS = ("rich", "markdown", "latex", "csv")
SUFFIXES = {".md": "markdown", ".tex": "latex", ".csv": "csv", ".txt": "rich", "": "markdown"}
#: characters per line where there is no terminal to ask
FILE_WIDTH = 120


class Parser(argparse.ArgumentParser):
    """Answers a mistake with one line."""

    def error(self, message: str) -> NoReturn:
        """Ends the program."""
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Prints or writes the table; returns the exit code, 2 for a mistake of the user's."""
    options = _parser().parse_args(argv)
    try:
        text = render(
            options.runs,
            _format(options),
            published=options.published,
            failed=options.failed,
            per_run=options.per_run,
            compare=options.compare,
            to_file=bool(options.out),
        )
        if options.out:
            _write(options.out, text)
    except PrunebenchError as error:
        sys.stderr.write(f"prunebench-table: {error}\n")
        return 2
    if not options.out:
        print_text(text)
    return 0


def _format(options: argparse.Namespace) -> str:
    """Returns the format asked for, in words or by the name of the file."""
    chosen: str | None = options.format
    if chosen is None and options.out:
        chosen = SUFFIXES.get(options.out.suffix)
        if chosen is None:
            valid = " ".join(filter(None, SUFFIXES))
            raise DataError(
                f"--out {options.out}: no format has this suffix; valid: {valid}, or any name "
                "with --format"
            )
    if options.per_run and chosen not in (None, "csv"):
        raise DataError(f"--per-run is for --format csv, not {chosen}")
    return chosen or ("csv" if options.per_run else "rich")


def render(  # noqa: PLR0913
    runs: Sequence[str | os.PathLike[str]],
    form: str,
    *,
    published: bool = True,
    failed: bool = True,
    per_run: bool = False,
    compare: bool = False,
    to_file: bool = False,
) -> str:
    """Returns the table of all runs at the paths `runs`.

    Args:
        runs: record files or folders.
        form: one of `FORMATS`.
        published: whether published figures for the same networks and data stand beside.
        failed: whether the runs that failed are named, rather than only counted.
        per_run: whether CSV has a line per run instead of one per setting.
        compare: whether pairs of methods are shown instead, with their differences.
        to_file: whether the text goes to a file, so that the terminal's width does not matter.

    Raises:
        DataError: there is no run that can be read.
    """
    found = load_runs(runs)
    if not failed:
        found.hide_failures()
    rows = rows_of(found.reports, found.failures, found.unfinished)
    if not rows or (per_run and not found.reports):
        raise DataError(f"no run has finished in {', '.join(map(str, runs))}; --failed lists more")
    if per_run:
        return csv_of_runs(rows)
    if compare:
        return _drawn(compared(rows), form, to_file=to_file)
    if published:
        shown = beside(rows)
        found.elsewhere = elsewhere(rows, shown)
        rows += shown
        rows.sort(key=lambda row: (row.model, row.dataset, bool(row.source)))
    if form == "csv":
        return csv_of_settings(rows)
    if form != "rich":
        write = markdown if form == "markdown" else latex
        return write(tabulate(rows, found))
    tall = len(rows) == 1 and rows[0].seeds and rows[0].top1
    return _rich([single(rows[0], found)] if tall else panels(rows, found), to_file=to_file)


def _drawn(table: Table, form: str, *, to_file: bool) -> str:
    """Returns one table in any format."""
    writers = {"markdown": markdown, "latex": latex, "csv": csv_of_table}
    return writers[form](table) if form in writers else _rich([table], to_file=to_file)


def _rich(tables: Sequence[Table], *, to_file: bool) -> str:
    # COLUMNS counts wherever the text goes, since its reader sets it
    width = FILE_WIDTH if to_file else shutil.get_terminal_size((FILE_WIDTH, 24)).columns
    return rich_text(
        tables, width=width, styles=None if sys.stdout.isatty() and not to_file else False
    )


def print_table(runs: Sequence[str | os.PathLike[str]]) -> None:
    """Prints the table of `runs` alone, without published figures, for people."""
    print_text(render(runs, "rich", published=False))


def print_text(text: str) -> None:
    """Prints `text`, whatever its reader takes."""
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
    parser = Parser(
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
        help="default: rich, or what the suffix of --out says (.md .tex .csv .txt)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write there instead of printing")
    parser.add_argument(
        "--published",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="set published figures for the same networks and data beside the runs",
    )
    parser.add_argument(
        "--failed",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="name the runs that failed, rather than only count them",
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="pairs of methods instead: difference, 95 %% interval, and a verdict",
    )
    parser.add_argument(
        "--per-run",
        action="store_true",
        help="CSV with a line per run: seed, path and digest of its report, all figures",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
