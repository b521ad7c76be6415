"""Defines the columns that a user can ask for by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from prunebench.errors import DataError, unknown
from prunebench.reports.cells import amount, ends, percent, points, times
from prunebench.reports.figures import Change, Spread
from prunebench.reports.notes import busy, label, marks_of, timed_beside
from prunebench.reports.rows import Row

#: stage -> title of its accuracies
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
    """Describes one column.

    Attributes:
        header: in tables for people.
        value: of a row, for sorting, comparing and files; None or "" if not known.
        text: of a row, for people.
        figures: whether it holds numbers.
    """

    header: str
    value: Callable[[Row], Value]
    text: Callable[[Row], str]
    figures: bool = True


def columns_of(rows: Sequence[Row]) -> dict[str, Column]:
    """Returns name -> column, for all columns but the keys of the configuration."""
    marks = marks_of(rows)
    found = {"method": _word_column("method", lambda row: label(row, marks))}
    found |= {name: _attribute_column(name) for name in WORDS}
    found |= {name: _setting_column(name) for name in SETTINGS}
    found |= {name: _count_column(name) for name in COUNTS}
    found |= {stage.removeprefix("finetuned_"): _accuracy_column(stage) for stage in ACCURACY}
    found["finetuned"] = _figure_column("fine-tuned %", _final, points)
    found["drop"] = _figure_column("drop", lambda row: row.drop, points)
    for name, title in (("params", "params"), ("macs", "MACs"), ("size", "file size")):
        found |= _cost_columns(name, title)
    return found | latencies(rows)


def latencies(rows: Sequence[Row]) -> dict[str, Column]:
    """Returns a column ``latency_<batch>`` per batch size; blank where a machine was too busy."""
    spoilt = busy(rows)

    def at(batch: int) -> Column:
        def read(row: Row) -> Change | None:
            return None if timed_beside(row) in spoilt else row.latency.get(batch)

        header = f"latency ms, batch {batch}"
        return Column(header, lambda row: _after(read(row)), lambda row: times(read(row)))

    batches = sorted({batch for row in rows for batch in row.latency})
    return {f"latency_{batch}": at(batch) for batch in batches}


def column(name: str, known: Mapping[str, Column], rows: Sequence[Row]) -> Column:
    """Returns the column `name`, which may also be a key of the configuration.

    Raises:
        DataError: there is no such column.
    """
    if name in known:
        return known[name]
    if any(name in row.settings for row in rows):
        return _setting_column(name)
    raise DataError(f"{unknown(name, known)}; or a key of the runs, such as budget.keep")


def plain(value: Value) -> str:
    """Returns the text that a condition is compared with."""
    if isinstance(value, Spread):
        return f"{value.mean:.10g}"  # counts in full
    return "" if value is None else str(value)


def rank(value: Value) -> tuple[bool, float, str]:
    """Returns a sort key that puts numbers in numeric order, and before words."""
    text = plain(value)
    try:
        return False, value.mean if isinstance(value, Spread) else float(text), ""
    except ValueError:
        return True, 0.0, text


def _word_column(header: str, read: Callable[[Row], str]) -> Column:
    return Column(header, read, read, figures=False)


def _attribute_column(name: str) -> Column:
    def read(row: Row) -> str:
        return str(getattr(row, name))

    return _word_column(name, read)


def _setting_column(key: str) -> Column:
    return _word_column(key, lambda row: row.settings.get(key, ""))


def _count_column(name: str) -> Column:
    def read(row: Row) -> int | None:
        count: int = getattr(row, name)
        return None if row.source or (name != "seeds" and not count) else count

    return Column(name, read, lambda row: plain(read(row)))


def _figure_column(
    header: str, read: Callable[[Row], Spread | None], show: Callable[[Spread | None], str]
) -> Column:
    return Column(header, read, lambda row: show(read(row)))


def _accuracy_column(stage: str) -> Column:
    return _figure_column(f"{ACCURACY[stage]} %", lambda row: row.top1.get(stage), points)


def _cost_columns(name: str, title: str) -> dict[str, Column]:
    """Returns three columns of a cost: change in percent, count afterwards, and both counts."""

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
        f"{name}_after": _figure_column(f"{title}, after", after, amount),
        f"{name}_counts": Column(f"{title}, counts", after, lambda row: ends(cost(row))),
    }


def _after(value: Change | None) -> Spread | None:
    return value.after if value else None


def _final(row: Row) -> Spread | None:
    """Returns the accuracy after fine-tuning, or else the published one."""
    return row.top1.get("finetuned_last", row.top1.get("published"))
