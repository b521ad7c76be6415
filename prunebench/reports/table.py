"""Implements ``prunebench table``: runs side by side, with published figures."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from prunebench.errors import DataError, Parser, PrunebenchError
from prunebench.reports.asked import Asked, lines_of, picked, tables_of
from prunebench.reports.columns import Table, single
from prunebench.reports.compare import compared
from prunebench.reports.formats import latex, markdown
from prunebench.reports.load import Runs, load_runs
from prunebench.reports.named import columns_of
from prunebench.reports.plain import Line, as_csv, as_json, of_runs, of_settings, of_table
from prunebench.reports.published import beside, elsewhere
from prunebench.reports.rows import Row, rows_of
from prunebench.reports.terminal import rich_text

FORMATS = ("rich", "markdown", "latex", "csv", "json")
SUFFIXES = {".md": "markdown", ".tex": "latex", ".csv": "csv", ".json": "json", ".txt": "rich"}
#: formats for programs -> function that writes lines in them
PLAIN: dict[str, Callable[[Sequence[Line]], str]] = {"csv": as_csv, "json": as_json}
NOTHING_ASKED = Asked()


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
            asked=Asked(
                columns=options.columns, sort=options.sort, where=options.where, by=options.by
            ),
            to_file=bool(options.out),
        )
        if options.out:
            _write(options.out, text)
            text = f"{options.out}\n"
    except PrunebenchError as error:
        sys.stderr.write(f"prunebench table: {error}\n")
        return 2
    print_text(text)
    return 0


def _format(options: argparse.Namespace) -> str:
    """Returns the format that ``--format`` or the suffix of ``--out`` names.

    Raises:
        DataError: the suffix is unknown, or the format does not go with other options.
    """
    chosen: str | None = options.format
    if chosen is None and options.out:
        chosen = SUFFIXES.get(options.out.suffix or ".md")
        if chosen is None:
            valid = " ".join(SUFFIXES)
            raise DataError(
                f"--out {options.out}: no format has this suffix; valid: {valid}, or any name "
                "with --format"
            )
    if options.per_run and chosen not in (None, *PLAIN):
        raise DataError(f"--per-run is for --format csv or json, not {chosen}")
    if options.columns and (options.per_run or options.compare):
        raise DataError(
            "--columns chooses columns of the table of settings; leave out --per-run and --compare"
        )
    return chosen or ("csv" if options.per_run else "rich")


def render(  # noqa: PLR0913
    runs: Sequence[str | os.PathLike[str]],
    form: str,
    *,
    published: bool = True,
    failed: bool = True,
    per_run: bool = False,
    compare: bool = False,
    asked: Asked = NOTHING_ASKED,
    to_file: bool = False,
) -> str:
    """Returns the table of all runs at the paths `runs`.

    Args:
        runs: record files or folders.
        form: one of `FORMATS`.
        published: whether to add published figures for the same networks and data.
        failed: whether to list failed runs, rather than only count them.
        per_run: whether CSV and JSON have a line per run instead of one per setting.
        compare: whether to show pairs of methods with their differences instead.
        asked: which columns and rows, in which order.
        to_file: whether the text goes to a file, so that the terminal's width does not matter.

    Raises:
        DataError: there is no readable run, or what is `asked` does not exist.
    """
    found = load_runs(runs)
    if not failed:
        found.hide_failures()
    rows = rows_of(found.reports, found.failures, found.unfinished)
    if not rows or (per_run and not found.reports):
        raise DataError(f"no run has finished in {', '.join(map(str, runs))}; --failed lists more")
    if per_run:
        return PLAIN[form](list(of_runs(picked(rows, asked))))
    if compare:
        return _drawn([compared(picked(rows, asked))], form, to_file=to_file)
    if published:
        shown = beside(rows)
        found.elsewhere = [] if asked.columns else elsewhere(rows, shown)
        rows += shown
        rows.sort(key=lambda row: (row.model, row.dataset, bool(row.source)))
    return _settings_text(picked(rows, asked), found, form, asked, to_file=to_file)


def _settings_text(
    rows: Sequence[Row], found: Runs, form: str, asked: Asked, *, to_file: bool
) -> str:
    """Returns a table with a line per setting; a single setting is shown before and after."""
    if form in PLAIN:
        names = [*dict.fromkeys([*asked.by, *asked.columns])] if asked.columns else ()
        return PLAIN[form](lines_of(rows, names) if names else of_settings(rows))
    alone = len(rows) == 1 and rows[0].seeds and rows[0].top1
    if form == "rich" and asked.nothing and alone:
        return rich_text([single(rows[0], found)], to_file=to_file)
    return _drawn(tables_of(rows, found, asked, wide=form != "rich"), form, to_file=to_file)


def _drawn(tables: Sequence[Table], form: str, *, to_file: bool) -> str:
    """Returns the tables in the format `form`, one below the other."""
    if form in PLAIN:
        return PLAIN[form]([line for one in tables for line in of_table(one)])
    if form == "rich":
        return rich_text(tables, to_file=to_file)
    return "\n".join(map(markdown if form == "markdown" else latex, tables))


def print_table(runs: Sequence[str | os.PathLike[str]]) -> None:
    """Prints the table of `runs` for people, without published figures."""
    print_text(render(runs, "rich", published=False))


def print_text(text: str) -> None:
    """Prints `text`; replaces characters that the terminal cannot show, ignores a closed pipe."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal without ± shows ? instead
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # head or less has ended; let Python's last flush go nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"--out {path} cannot be written ({error.strerror})") from None


def _names(text: str) -> list[str]:
    """Returns the names in a comma-separated list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Adds the argument ``runs``, the paths for `load_runs`."""
    parser.add_argument(
        "runs",
        nargs="*",
        default=["outputs"],
        help="report files, or folders searched with their subfolders (default: outputs)",
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="prunebench table",
        description=(
            "Compares runs: accuracy, parameters, MACs and latency before and after, with mean "
            "and standard deviation over seeds, and published figures with their sources."
        ),
    )
    add_runs(parser)
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="default: rich, or what the suffix of --out says (.md .tex .csv .json .txt)",
    )
    _add_choices(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write there instead of printing")
    parser.add_argument(
        "--published",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="add published figures for the same networks and data",
    )
    parser.add_argument(
        "--failed",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="name failed runs instead of only counting them",
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="pairs of methods instead: difference, 95 %% interval, and a verdict",
    )
    parser.add_argument(
        "--per-run",
        action="store_true",
        help="CSV or JSON with a line per run: seed, path and digest of its report, all figures",
    )
    return parser


def _add_choices(parser: argparse.ArgumentParser) -> None:
    """Adds the options that choose columns and rows."""
    parser.add_argument(
        "--columns",
        type=_names,
        default=[],
        metavar="NAME,...",
        help=f"only these columns, in this order: {' '.join(columns_of([]))} latency_64, or a key "
        "of the runs such as budget.keep",
    )
    parser.add_argument(
        "--sort",
        default="",
        metavar="NAME[,desc]",
        help="sort by a column; unknown figures come last",
    )
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help="only rows with criterion=l1,fpgm (* matches anything), 'drop<1' or 'macs>-50'; if "
        "given several times, all must hold",
    )
    parser.add_argument(
        "--by",
        type=_names,
        default=[],
        metavar="NAME,...",
        help="one table for each value of these columns",
    )
