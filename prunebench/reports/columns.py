"""Composes tables before they are drawn: their columns, rows and the notes below."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from prunebench.records import TOP1
from prunebench.reports.cells import amount, cost, percent, plain, points, speed_up, step
from prunebench.reports.load import Runs
from prunebench.reports.named import ACCURACY, COUNTS, Column, columns_of, latencies
from prunebench.reports.notes import busy, label, latency_notes, losses_of, notes_of
from prunebench.reports.rows import Row

#: returns the text of a row in one column
Cell = Callable[[Row], str]
#: accuracies in the wide table
WIDE = ("baseline", "pruned", "repaired", "last", "best_val", "published", "drop")
#: accuracies and costs in the narrow table, most important first: it shows as many as fit
NARROW = (
    *("finetuned", "drop", "macs", "baseline", "params", "pruned", "repaired", "best_val"),
    *("macs_counts", "params_counts"),
)


@dataclass(frozen=True)
class Table:
    """Holds a table's text: one list of cells per row, and the notes below.

    Attributes:
        headers: of the columns.
        rows: cells.
        notes: lines to print below.
        labels: how many of the first columns hold words; the others hold figures.
        title: printed above; "" for none.
        asides: header -> lines to print below while that column is shown.
    """

    headers: list[str]
    rows: list[list[str]]
    notes: list[str]
    labels: int = 1
    title: str = ""
    asides: Mapping[str, list[str]] = field(default_factory=dict)

    def first(self, count: int) -> Table:
        """Returns the table with its first `count` columns only."""
        return replace(self, headers=self.headers[:count], rows=[row[:count] for row in self.rows])

    def filled(self) -> Table:
        """Returns the table without its empty columns."""
        at = [i for i in range(len(self.headers)) if any(row[i] for row in self.rows)]
        headers = [self.headers[i] for i in at]
        return replace(self, headers=headers, rows=[[row[i] for i in at] for row in self.rows])

    @property
    def lines(self) -> list[str]:
        """All lines to print below, for the columns that are shown."""
        asides = [line for header in self.headers for line in self.asides.get(header, [])]
        return [*dict.fromkeys(asides), *self.notes]


def tabulate(rows: Sequence[Row], runs: Runs, title: Cell) -> list[Table]:
    """Returns the wide tables, one for each `title`, without empty columns."""
    known = columns_of(rows)
    columns = _cells(known, ("model", "dataset", "method", *COUNTS)) | _metric(rows)
    columns |= _cells(known, WIDE)
    columns |= {"params": lambda row: cost(row.params), "MACs": lambda row: cost(row.macs)}
    columns |= _cells(known, latencies(rows))
    return [replace(one, labels=3).filled() for one in tables(rows, runs, columns, title)]


def panels(
    rows: Sequence[Row], runs: Runs, title: Cell = lambda row: f"{row.model} on {row.dataset}"
) -> list[Table]:
    """Returns the narrow tables, one for each `title`, most important columns first."""
    known = columns_of(rows)
    known["best_val"] = replace(known["best_val"], header="best val %")
    columns = _cells(known, ("method", *COUNTS)) | _metric(rows) | _cells(known, NARROW)
    columns |= _cells(known, latencies(rows))
    return [one.filled() for one in tables(rows, runs, columns, title)]


def tables(
    rows: Sequence[Row], runs: Runs, columns: Mapping[str, Cell], title: Cell
) -> list[Table]:
    """Returns one table with these `columns` for each `title`; the last has the notes on all."""
    made, timed = [], [one.header for one in latencies(rows).values()]
    for name in dict.fromkeys(map(title, rows)):
        own = [row for row in rows if title(row) == name]
        cells = [[read(row) for read in columns.values()] for row in own]
        asides = dict.fromkeys(timed, latency_notes(own))
        made.append(Table(list(columns), cells, [], title=name, asides=asides))
    return [*made[:-1], replace(made[-1], notes=notes_of(rows) + losses_of(runs))]


def single(row: Row, runs: Runs) -> Table:
    """Returns the table of a single setting, with columns before, after and change."""
    stages = {stage: value for stage, value in row.top1.items() if stage != "baseline"}
    base = row.top1.get("baseline")
    lines = [
        [f"{row.metric} %, {ACCURACY[stage]}", points(base), points(value), step(base, value)]
        for stage, value in stages.items()
    ]
    for title, value in (("params", row.params), ("MACs", row.macs), ("file size", row.size)):
        if value:
            unit = "B" if title == "file size" else ""
            before, after = amount(value.before, unit), amount(value.after, unit)
            lines.append([title, before, after, percent(value.reduction)])
    for batch, value in row.latency.items() if not busy([row]) else ():
        title = f"latency ms, batch {batch}"
        lines.append([title, plain(value.before), plain(value.after), speed_up(value)])
    title = f"{row.model} on {row.dataset}: {label(row, {})}"
    notes = latency_notes([row]) + notes_of([row]) + losses_of(runs)
    return Table(["", "before", "after", "change"], lines, notes, title=title)


def _cells(known: Mapping[str, Column], names: Iterable[str]) -> dict[str, Cell]:
    """Returns header -> cell for the columns `names`."""
    return {known[name].header: known[name].text for name in names}


def _metric(rows: Sequence[Row]) -> dict[str, Cell]:
    """Returns a column that names the metric of each row; an empty one if all are top-1."""
    plain = all(row.metric == TOP1 for row in rows)
    return {"accuracy": lambda row: "" if plain else row.metric}
