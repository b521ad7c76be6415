"""Cells: how rows read to a person, and the lines that must stand below them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from prunebench.records import Failure
from prunebench.reports.rows import Change, Row, Spread

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

#: interquartile range over median above which a latency says more of the machine than of the net
BUSY = 0.2


@dataclass(frozen=True)
class Table:
    """What is to be shown: one list of cells per row, and the lines below.

    Attributes:
        headers: of the columns.
        rows: cells.
        notes: lines that must stand below.
        labels: how many of the first columns hold text; the others hold figures.
        title: to stand above; "" for none.
    """

    headers: list[str]
    rows: list[list[str]]
    notes: list[str]
    labels: int = 1
    title: str = ""


def tabulate(rows: Sequence[Row], failures: Sequence[tuple[Path, Failure]]) -> Table:
    """Returns the wide table: a line per row, without columns that would be empty."""
    columns = _names(rows) | _counts() | _accuracies() | _costs(rows)
    return replace(_filled(rows, columns), notes=notes_of(rows, failures), labels=3)


def panels(rows: Sequence[Row], failures: Sequence[tuple[Path, Failure]]) -> list[Table]:
    """Returns narrow tables for a terminal: accuracies and costs of each network and data set."""
    names = {"method": _names(rows)["method"]}
    tables = []
    for model, dataset in dict.fromkeys((row.model, row.dataset) for row in rows):
        here = [row for row in rows if (row.model, row.dataset) == (model, dataset)]
        title = f"{model} on {dataset}"
        tables.append(replace(_filled(here, names | _counts() | _accuracies()), title=title))
        costs = _filled(here, names | _costs(here))
        if len(costs.headers) > 1:
            tables.append(costs)
    return [*tables[:-1], replace(tables[-1], notes=notes_of(rows, failures))]


def _filled(rows: Sequence[Row], columns: Mapping[str, Column]) -> Table:
    """Returns `columns` of `rows`, those left out that are empty throughout."""
    cells = {title: [read(row) for row in rows] for title, read in columns.items()}
    shown = [title for title, column in cells.items() if any(column)]
    return Table(shown, [[cells[title][i] for title in shown] for i in range(len(rows))], [])


def _names(rows: Sequence[Row]) -> dict[str, Column]:
    marks = _marks(rows)
    return {
        "model": lambda row: row.model,
        "dataset": lambda row: row.dataset,
        "method": lambda row: _method(row, marks),
    }


def _accuracies() -> dict[str, Column]:
    def at(stage: str) -> Column:
        return lambda row: points(row.top1.get(stage))

    columns = {f"{title} %": at(stage) for stage, title in ACCURACY.items()}
    return columns | {"drop": lambda row: points(row.drop)}


def _costs(rows: Sequence[Row]) -> dict[str, Column]:
    def at(batch: int) -> Column:
        return lambda row: times(row.latency.get(batch))

    batches = sorted({batch for row in rows for batch in row.latency})
    columns: dict[str, Column] = {
        "params": lambda row: cost(row.params),
        "MACs": lambda row: cost(row.macs),
    }
    return columns | {f"latency ms, batch {batch}": at(batch) for batch in batches}


def _counts() -> dict[str, Column]:
    return {
        "seeds": lambda row: "" if row.source else str(row.seeds),
        "failed": lambda row: str(row.failed) if row.failed else "",
    }


def single(row: Row, failures: Sequence[tuple[Path, Failure]]) -> Table:
    """Returns the tall table of one setting: what was before, what is after, what has changed."""
    stages = {stage: value for stage, value in row.top1.items() if stage != "baseline"}
    base = row.top1.get("baseline")
    lines = [
        [f"top-1 %, {ACCURACY[stage]}", points(base), points(value), _step(base, value)]
        for stage, value in stages.items()
    ]
    for title, value in (("params", row.params), ("MACs", row.macs), ("file size", row.size)):
        if value:
            unit = "B" if title == "file size" else ""
            before, after = amount(value.before, unit), amount(value.after, unit)
            lines.append([title, before, after, percent(value.reduction)])
    for batch, value in row.latency.items():
        before, after = _plain(value.before), _plain(value.after)
        lines.append([f"latency ms, batch {batch}", before, after, _speed_up(value)])
    title = f"{row.model} on {row.dataset}: {_method(row, {})}"
    headers = ["", "before", "after", "change"]
    return Table(headers, lines, notes_of([row], failures), title=title)


def notes_of(rows: Sequence[Row], failures: Sequence[tuple[Path, Failure]]) -> list[str]:
    """Returns what must be said with the figures: conventions, data, sources, failures."""
    runs = [row for row in rows if not row.source]
    notes = []
    if any(row.seeds for row in runs):
        notes.append("Top-1 on the test split; drop = baseline minus fine-tuned (last), in points.")
    if any(row.seeds > 1 for row in runs):
        notes.append("a ± b: mean and sample standard deviation over the seeds.")
    notes += [f"Counts: {text}" for text in _unique(row.convention for row in runs)]
    notes += [
        f"Data, {name}: {text}"
        for name, text in dict.fromkeys((row.dataset, row.note) for row in runs if row.note)
    ]
    notes += [
        f"Channels by case, {_method(row, {})}: "
        + ", ".join(f"{key} {_channels(value)}" for key, value in row.counted.items())
        for row in runs
        if row.counted
    ]
    notes += [
        f"Latency: median per forward pass on {text}, {_rest(runs, text)}"
        for text in _unique(row.hardware for row in runs if row.latency)
    ]
    notes += [
        f"Latency of {_method(row, {})} is left out, it was measured on different machines: "
        f"{row.hardware}"
        for row in runs
        if row.hardware and not row.latency
    ]
    notes += [f"{mark} {text}" for text, mark in _marks(rows).items()]
    notes += [f"failed: {path.parent} ({f.stage}: {_first_line(f)})" for path, f in failures]
    return notes


def _rest(rows: Sequence[Row], hardware: str) -> str:
    """Returns how far the single passes spread, and what to make of it."""
    widest = max(row.restlessness for row in rows if row.hardware == hardware and row.latency)
    text = f"interquartile range up to {widest:.0%} of it"
    return text if widest <= BUSY else f"{text}: the machine was busy, so do not compare"


def points(value: Spread | None) -> str:
    """Returns percent or points with two decimals: ``93.81 ± 0.12``."""
    return _with_std(value, 2)


def percent(reduction: Spread | None) -> str:
    """Returns a reduction as the change it is: ``-87.1 ± 0.3 %``."""
    if reduction is None:
        return ""
    text = _with_std(Spread(-reduction.mean, reduction.std), 1)
    return ("+" if not text.startswith("-") and float(text.split()[0]) else "") + text + " %"


def amount(value: Spread | None, unit: str = "") -> str:
    """Returns a count in four digits with its prefix: ``14.72 M``."""
    if value is None:
        return ""
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value.mean >= size:
            return f"{value.mean / size:.4g} {prefix}{unit}"
    return f"{value.mean:.4g} {unit}".rstrip()


def cost(value: Change | None) -> str:
    """Returns before, after and reduction, as far as known: ``14.72 M → 1.9 M (-87.1 %)``."""
    if value is None:
        return ""
    ends = [amount(end) for end in (value.before, value.after) if end]
    change = percent(value.reduction)
    if not ends:
        return change
    return " → ".join(ends) + (f" ({change})" if change else "")


def times(value: Change | None) -> str:
    """Returns milliseconds before and after with the speed-up: ``3.2 → 1.6 (2.00x)``."""
    if value is None:
        return ""
    return f"{_plain(value.before)} → {_plain(value.after)} ({_speed_up(value)})"


def _speed_up(value: Change) -> str:
    if value.before is None or value.after is None or not value.after.mean:
        return ""
    return f"{value.before.mean / value.after.mean:.2f}x"


def _step(base: Spread | None, value: Spread) -> str:
    return "" if base is None else f"{round(value.mean - base.mean, 2) + 0.0:+.2f}"


def _plain(value: Spread | None) -> str:
    return "" if value is None else f"{value.mean:.4g}"


def _channels(value: Spread) -> str:
    return f"{value.mean:.0f}" if value.std is None else _with_std(value, 1)


def _with_std(value: Spread | None, digits: int) -> str:
    if value is None:
        return ""
    text = f"{round(value.mean, digits) + 0.0:.{digits}f}"  # + 0.0: no "-0.00"
    return text if value.std is None else f"{text} ± {value.std:.{digits}f}"


def _method(row: Row, marks: dict[str, str]) -> str:
    name = f"{row.method} [{row.details}]" if row.details else row.method
    return f"{name} {marks[_origin(row)]}" if _origin(row) in marks else name


def _origin(row: Row) -> str:
    parts = [row.source, row.convention, row.note]
    return "; ".join(part for part in parts if part)


def _marks(rows: Sequence[Row]) -> dict[str, str]:
    origins = _unique(_origin(row) for row in rows if row.source)
    return {origin: f"[{number}]" for number, origin in enumerate(origins, start=1)}


def _unique(texts: Iterable[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if text]


def _first_line(failure: Failure) -> str:
    return f"{failure.kind}: {failure.message.strip().partition(chr(10))[0]}"
