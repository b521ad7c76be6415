"""Implements ``prunebench published``: published results, listed, filtered and checked."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from prunebench.errors import DataError, Parser, unknown
from prunebench.published.check import COSTS, Finding, findings
from prunebench.published.nets import TIERS, nets_of, tier
from prunebench.published.record import FIGURES, Published, find, load
from prunebench.reports.cells import cost, percent, points
from prunebench.reports.columns import Table
from prunebench.reports.figures import Spread
from prunebench.reports.formats import markdown
from prunebench.reports.published import change
from prunebench.reports.table import print_text
from prunebench.reports.terminal import rich_text

#: columns that can be filtered: those in EXACT by their whole text, the others by a part of it
EXACT = ("id", "model", "dataset", "tier", "year")
FILTERS = (*EXACT, "method", "paper", "source", "convention", "notes")
#: suffix to the id of a row with a known contradiction
DOUBTFUL = " !"


def main(words: Sequence[str]) -> int:
    """Prints the chosen rows, or runs the check; returns 1 if the check fails.

    Raises:
        DataError: no row matches.
    """
    asked = _parser().parse_intermixed_args(words)
    if asked.words == ["check"]:
        return check(load())
    rows = chosen(load(), asked.words)
    if not rows:
        raise DataError(f"no published row has {' '.join(asked.words)}; see prunebench published")
    print_text(WRITERS[asked.format](rows))
    return 0


def chosen(rows: Sequence[Published], words: Sequence[str]) -> list[Published]:
    """Returns the rows that meet every ``column=value``; a bare word is the id of a row.

    Commas separate alternative values, ``*`` matches anything, and case does not matter.

    Raises:
        DataError: a column cannot be filtered, or no row has that id.
    """
    filters: dict[str, list[str]] = {}
    for word in words:
        column, given, values = word.rpartition("=")
        if not given:
            column, values = "id", find(word).id
        if column not in FILTERS:
            raise DataError(unknown(column, FILTERS))
        filters.setdefault(column, []).extend(values.lower().split(","))
    return [row for row in rows if all(_holds(row, *item) for item in filters.items())]


def _holds(row: Published, column: str, values: Sequence[str]) -> bool:
    text = (tier(row) if column == "tier" else str(getattr(row, column))).lower()
    around = "" if column in EXACT else "*"
    return any(fnmatchcase(text, f"{around}{value}{around}") for value in values)


def check(rows: Sequence[Published]) -> int:
    """Prints every contradiction in `rows`; returns 1 if one is not marked, or a mark has none."""
    found = findings(rows)
    wrong = {finding.row.id for finding in found}
    lines = [
        f"{one.row.id}: {one.text}{'' if one.marked else ' - NOT MARKED in its column doubt'}"
        for one in found
    ]
    idle = [row.id for row in rows if row.doubt and row.id not in wrong]
    lines += [f"{row_id}: marked, but nothing contradicts it" for row_id in idle]
    print_text("\n".join([*lines, "", *summary(rows, found)]) + "\n")
    return int(bool(idle) or not all(one.marked for one in found))


def summary(rows: Sequence[Published], found: Sequence[Finding]) -> list[str]:
    """Returns lines with the number of rows, their tiers and their contradictions."""
    tiers = Counter(tier(row) for row in rows)
    wrong = {one.row.id for one in found}
    unmarked = sum(not one.marked for one in found)
    lines = [
        f"{len(rows)} rows of {len({row.method for row in rows})} methods: "
        + ", ".join(f"{tiers[name]} {name}" for name in TIERS),
        f"{len(found)} contradictions in {len(wrong)} rows, "
        + (f"{unmarked} of them not marked" if unmarked else "all of them marked"),
    ]
    for what, word in COSTS.items():
        known = Counter(_baseline(row, what) for row in rows if f"{what}_before" in row.figures)
        lines.append(
            f"{word} of {sum(known.values())} baselines: {known['ours']} as one of our networks "
            f"counts, {known['other']} of a variant, {known['none']} of a network we do not have"
        )
    return lines


def _baseline(row: Published, cost: str) -> str:
    nets = nets_of(row)
    if any(net.agrees(cost, row.figures[f"{cost}_before"]) for net in nets):
        return "ours"
    return "other" if nets else "none"


def rich(rows: Sequence[Published]) -> str:
    """Returns tables for the terminal, one per network and data set, or all of a single row."""
    if len(rows) == 1:
        return whole(rows[0])
    places = dict.fromkeys((row.model, row.dataset) for row in rows)
    tables = [listed([r for r in rows if (r.model, r.dataset) == place]) for place in places]
    notes = [f"{len(rows)} rows. Tiers: " + "; ".join(f"{k}: {v}" for k, v in TIERS.items()) + "."]
    if any(row.doubt for row in rows):
        notes.append("! something contradicts a figure: prunebench published check")
    tables[-1] = replace(tables[-1], notes=notes)
    return rich_text(tables, label=max(len(row.id) for row in rows) + len(DOUBTFUL))


def listed(rows: Sequence[Published]) -> Table:
    """Returns a table with a line per row, most important columns first."""
    headers = ["row", "top-1 %", "drop", "MACs", "params", "baseline %", "tier", "year"]
    lines = [
        [
            row.id + (DOUBTFUL if row.doubt else ""),
            _points(row.value("top1")),
            _points(row.drop),
            _percent(row.reduction("macs")),
            _percent(row.reduction("params")),
            _points(row.value("baseline_top1")),
            tier(row),
            row.year,
        ]
        for row in rows
    ]
    return Table(headers, lines, [], title=f"{rows[0].model} on {rows[0].dataset}")


def whole(row: Published) -> str:
    """Returns all that is known of one row, with figures as printed in the source."""
    lines = [f"{key:<17} {value}" for key, value in plain(row).items() if value]
    lines += [f"{'contradiction':<17} {one.text}" for one in findings(load()) if one.row is row]
    return "\n".join(lines) + "\n"


def as_markdown(rows: Sequence[Published]) -> str:
    """Returns a Markdown table with a line per row."""
    columns = ("id", "model", "dataset", "method", "tier", "source")
    lines = [
        [
            *(plain(row)[column] for column in columns),
            _points(row.value("baseline_top1")),
            _points(row.value("top1")),
            cost(change(row, "params")),
            cost(change(row, "macs")),
        ]
        for row in rows
    ]
    headers = [*columns, "baseline %", "top-1 %", "params", "MACs"]
    return markdown(Table(headers, lines, [], labels=len(columns)))


def as_csv(rows: Sequence[Published]) -> str:
    """Returns the rows as they are stored, with data set and tier, as CSV."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(plain(rows[0])), lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(plain, rows))
    return file.getvalue()


def as_json(rows: Sequence[Published]) -> str:
    """Returns a JSON list of objects; figures are numbers, null if not printed in the source."""
    found = [
        {
            **{key: value or None for key, value in plain(row).items()},
            **{name: row.figures[name].value if name in row.figures else None for name in FIGURES},
            "quoted": row.quoted,
            "doubt": list(row.doubt),
        }
        for row in rows
    ]
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def plain(row: Published) -> dict[str, str]:
    """Returns column -> text, with figures as printed in the source."""
    figures = {name: row.figures[name].text if name in row.figures else "" for name in FIGURES}
    return {
        **{key: getattr(row, key) for key in ("id", "dataset", "model", "method", "paper", "year")},
        "tier": tier(row),
        **figures,
        **{key: getattr(row, key) for key in ("convention", "source", "notes")},
        "quoted": "yes" if row.quoted else "",
        "doubt": " ".join(row.doubt),
    }


def _points(value: float | None) -> str:
    return points(None if value is None else Spread(value))


def _percent(reduction: float | None) -> str:
    return percent(None if reduction is None else Spread(reduction))


WRITERS = {"rich": rich, "markdown": as_markdown, "csv": as_csv, "json": as_json}


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="prunebench published",
        description=(
            "Lists published results. With the word check, lists those that contradict "
            "themselves, their source, or our network."
        ),
        epilog=(
            f"Columns: {', '.join(FILTERS)}. Example: prunebench published model=resnet56 "
            "dataset=cifar10 method=fpgm,sfp. prunebench reproduce ROW runs the closest command."
        ),
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="ROW | column=value | check",
        help="rows by id (shows everything known about it), or by values of columns",
    )
    parser.add_argument("--format", choices=tuple(WRITERS), default="rich")
    return parser
