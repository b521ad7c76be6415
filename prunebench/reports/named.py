"""Columns that can be asked for by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from prunebench.errors import DataError, unknown
from prunebench.reports.cells import amount, ends, percent, points, times
from prunebench.reports.figures import Change, Spread
from prunebench.reports.notes import busy, label, marks_of, timed_beside
from prunebench.reports.rows import Row

#: stage -> title
ACCURACY = {
    "baseline": "baseline",
    "pruned": "pruned",
    "repaired": "repaired",
    "finetuned_last": "fine-tuned (last)",
    "finetuned_best_val": "fine-tuned (best val)",
    "published": "published",
}
Value = Spread | str | int | None
WORDS = ("model", "dataset", "control", "metric", "source", "note")
SETTINGS = ("criterion", "budget", "repair", "schedule", "recipe")
COUNTS = ("seeds", "failed", "unfinished")


@dataclass(frozen=True)
class Column:
    """One column that can be asked for.

    Attributes:
        header: in tables for people.
        value: for sorting, comparing and files; None or "" where nothing is known.
        text: the cell.
        figures: whether it holds numbers.
    """

    header: str
    value: Callable[[Row], Value]
    text: Callable[[Row], str]
    figures: bool = True


def columns_of(rows: Sequence[Row]) -> dict[str, Column]:
    """Returns name -> column, of all that can be asked for but the keys of the configuration."""
    marks = marks_of(rows)
    found = {"method": _word("method", lambda row: label(row, marks))}
    found |= {name: _attribute(name) for name in WORDS}
    found |= {name: _setting(name) for name in SETTINGS}
    found |= {name: _count(name) for name in COUNTS}
    found |= {stage.removeprefix("finetuned_"): _accuracy(stage) for stage in ACCURACY}
    found["finetuned"] = _figure("fine-tuned %", _final, points)
    found["drop"] = _figure("drop", lambda row: row.drop, points)
    for name, title in (("params", "params"), ("macs", "MACs"), ("size", "file size")):
        found |= _costs(name, title)
    return found | latencies(rows)


def latencies(rows: Sequence[Row]) -> dict[str, Column]:
    """Returns name -> milliseconds at each batch size, where the machines allowed a comparison."""
    spoilt = busy(rows)

    def at(batch: int) -> Column:
        def read(row: Row) -> Change | None:
            return None if timed_beside(row) in spoilt else row.latency.get(batch)

        header = f"latency ms, batch {batch}"
        return Column(header, lambda row: _after(read(row)), lambda row: times(read(row)))

    batches = sorted({batch for row in rows for batch in row.latency})
    return {f"latency_{batch}": at(batch) for batch in batches}


def column(name: str, known: Mapping[str, Column], rows: Sequence[Row]) -> Column:
    """Returns the column `name`, which may be a key of the configuration.

    Raises:
        DataError: there is none of that name.
    """
    if name in known:
        return known[name]
    if any(name in row.settings for row in rows):
        return _setting(name)
    raise DataError(f"{unknown(name, known)}; or a key of the runs, such as budget.keep")


def plain(value: Value) -> str:
    """Returns what a condition compares with."""
    if isinstance(value, Spread):
        return f"{value.mean:.10g}"  # counts in full
    return "" if value is None else str(value)


def rank(value: Value) -> tuple[bool, float, str]:
    """Returns a key that sorts numbers as numbers, and before words."""
    text = plain(value)
    try:
        return False, value.mean if isinstance(value, Spread) else float(text), ""
    except ValueError:
        return True, 0.0, text


def _word(header: str, read: Callable[[Row], str]) -> Column:
    return Column(header, read, read, figures=False)


def _attribute(name: str) -> Column:
    def read(row: Row) -> str:
        return str(getattr(row, name))

    return _word(name, read)


def _setting(key: str) -> Column:
    return _word(key, lambda row: row.settings.get(key, ""))


def _count(name: str) -> Column:
    def read(row: Row) -> int | None:
        count: int = getattr(row, name)
        return None if row.source or (name != "seeds" and not count) else count

    return Column(name, read, lambda row: plain(read(row)))


def _figure(
    header: str, read: Callable[[Row], Spread | None], show: Callable[[Spread | None], str]
) -> Column:
    return Column(header, read, lambda row: show(read(row)))


def _accuracy(stage: str) -> Column:
    return _figure(f"{ACCURACY[stage]} %", lambda row: row.top1.get(stage), points)


def _costs(name: str, title: str) -> dict[str, Column]:
    """Returns a cost's change in percent, its counts before and after, and the latter alone."""

    def cost(row: Row) -> Change | None:
        found: Change | None = getattr(row, name)
        return found

    def reduction(row: Row) -> Spread | None:
        found = cost(row)
        return found.reduction if found else None

    def changed(row: Row) -> Spread | None:
        less = reduction(row)
        return Spread(0.0 - less.mean, less.std) if less else None

    def after(row: Row) -> Spread | None:
        return _after(cost(row))

    return {
        name: Column(title, changed, lambda row: percent(reduction(row))),
        f"{name}_after": _figure(f"{title}, after", after, amount),
        f"{name}_counts": Column(f"{title}, counts", after, lambda row: ends(cost(row))),
    }


def _after(value: Change | None) -> Spread | None:
    return value.after if value else None


def _final(row: Row) -> Spread | None:
    """Returns the accuracy that a method ends with."""
    return row.top1.get("finetuned_last", row.top1.get("published"))
