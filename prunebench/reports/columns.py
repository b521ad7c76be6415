"""Tables before they are drawn: which columns there are, in which order, and the lines below."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from prunebench.records import TOP1
from prunebench.reports.cells import (
    amount,
    cost,
    ends,
    percent,
    plain,
    points,
    speed_up,
    step,
    times,
)
from prunebench.reports.load import Runs
from prunebench.reports.notes import (
    busy,
    label,
    latency_notes,
    losses_of,
    marks_of,
    notes_of,
    timed_beside,
)
from prunebench.reports.rows import Row

#: how a cell is read off a row
Column = Callable[[Row], str]
#: stage -> title
ACCURACY = {
    "baseline": "baseline",
    "pruned": "pruned",
    "repaired": "repaired",
    "finetuned_last": "fine-tuned (last)",
    "finetuned_best_val": "fine-tuned (best val)",
    "published": "published",
}


@dataclass(frozen=True)
class Table:
    """What is to be shown: one list of cells per row, and the lines below.

    Attributes:
        headers: of the columns.
        rows: cells.
        notes: lines that must stand below.
        labels: how many of the first columns hold text; the others hold figures.
        title: to stand above; "" for none.
        asides: header -> lines that must stand below while its column is shown.
    """

    headers: list[str]
    rows: list[list[str]]
    notes: list[str]
    labels: int = 1
    title: str = ""
    asides: Mapping[str, list[str]] = field(default_factory=dict)

    def first(self, count: int) -> Table:
        """Returns the first `count` columns."""
        return replace(self, headers=self.headers[:count], rows=[row[:count] for row in self.rows])

    def filled(self) -> Table:
        """Returns the columns that hold something."""
        at = [i for i in range(len(self.headers)) if any(row[i] for row in self.rows)]
        headers = [self.headers[i] for i in at]
        return replace(self, headers=headers, rows=[[row[i] for i in at] for row in self.rows])

    @property
    def lines(self) -> list[str]:
        """All that must stand below the columns there are."""
        asides = [line for header in self.headers for line in self.asides.get(header, [])]
        return [*dict.fromkeys(asides), *self.notes]


def tabulate(rows: Sequence[Row], runs: Runs, title: Column) -> list[Table]:
    """Returns the wide table: a line per row, without columns that would be empty.

    There is a table for each `title`.
    """
    latencies = latency_columns(rows)
    columns = _names(rows) | _counts() | _metric(rows) | _accuracies() | _costs() | latencies
    return [replace(one, labels=3).filled() for one in tables(rows, runs, columns, title)]


def panels(
    rows: Sequence[Row],
    runs: Runs,
    title: Column = lambda row: f"{row.model} on {row.dataset}",
) -> list[Table]:
    """Returns a table for each `title`, what matters most in its first columns."""
    names = {"method": _names(rows)["method"]}
    columns = names | _counts() | _metric(rows) | _in_short() | latency_columns(rows)
    return [one.filled() for one in tables(rows, runs, columns, title)]


def tables(
    rows: Sequence[Row], runs: Runs, columns: Mapping[str, Column], title: Column
) -> list[Table]:
    """Returns a table with these `columns` for each `title`; what must be said stands below all."""
    made = []
    for name in dict.fromkeys(map(title, rows)):
        here = [row for row in rows if title(row) == name]
        cells = [[read(row) for read in columns.values()] for row in here]
        asides = dict.fromkeys(latency_columns(rows), latency_notes(here))
        made.append(Table(list(columns), cells, [], title=name, asides=asides))
    return [*made[:-1], replace(made[-1], notes=notes_of(rows) + losses_of(runs))]


def single(row: Row, runs: Runs) -> Table:
    """Returns the tall table of one setting: what was before, what is after, what has changed."""
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


def _names(rows: Sequence[Row]) -> dict[str, Column]:
    marks = marks_of(rows)
    return {
        "model": lambda row: row.model,
        "dataset": lambda row: row.dataset,
        "method": lambda row: label(row, marks),
    }


def _counts() -> dict[str, Column]:
    return {
        "seeds": lambda row: "" if row.source else str(row.seeds),
        "failed": lambda row: str(row.failed or ""),
        "unfinished": lambda row: str(row.unfinished or ""),
    }


def _metric(rows: Sequence[Row]) -> dict[str, Column]:
    """Returns what accuracies are, where they are not all top-1."""
    plain = all(row.metric == TOP1 for row in rows)
    return {"accuracy": lambda row: "" if plain else row.metric}


def _accuracies() -> dict[str, Column]:
    columns = {f"{title} %": _top1(stage) for stage, title in ACCURACY.items()}
    return columns | {"drop": lambda row: points(row.drop)}


def _costs() -> dict[str, Column]:
    return {"params": lambda row: cost(row.params), "MACs": lambda row: cost(row.macs)}


def _in_short() -> dict[str, Column]:
    """Returns accuracies and costs by weight: a narrow table shows the first of them."""
    return {
        "fine-tuned %": lambda row: points(
            row.top1.get("finetuned_last", row.top1.get("published"))
        ),
        "drop": lambda row: points(row.drop),
        "MACs": lambda row: percent(row.macs.reduction) if row.macs else "",
        "baseline %": _top1("baseline"),
        "params": lambda row: percent(row.params.reduction) if row.params else "",
        "pruned %": _top1("pruned"),
        "repaired %": _top1("repaired"),
        "best val %": _top1("finetuned_best_val"),
        "MACs, counts": lambda row: ends(row.macs),
        "params, counts": lambda row: ends(row.params),
    }


def latency_columns(rows: Sequence[Row]) -> dict[str, Column]:
    """Returns the latencies of all batch sizes, where the machines allowed a comparison."""
    spoilt = busy(rows)

    def at(batch: int) -> Column:
        return lambda row: "" if timed_beside(row) in spoilt else times(row.latency.get(batch))

    batches = sorted({batch for row in rows for batch in row.latency})
    return {f"latency ms, batch {batch}": at(batch) for batch in batches}


def _top1(stage: str) -> Column:
    return lambda row: points(row.top1.get(stage))
