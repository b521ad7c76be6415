"""Reads the rows of the published record."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from prunebench.errors import DataError, unknown

#: columns with words
WORDS = ("id", "model", "method", "paper", "year", "convention", "source", "notes")
#: columns with figures
FIGURES = (
    *("baseline_top1", "top1", "spread", "drop", "baseline_top5", "top5"),
    *("params_before", "params_after", "params_reduction", "params_factor"),
    *("macs_before", "macs_after", "macs_reduction", "macs_factor"),
)
#: columns with "yes" or nothing
MARKS = ("quoted", "beside")
COLUMNS = {*WORDS, *FIGURES, *MARKS, "doubt"}


class Figure(NamedTuple):
    """Holds a number as printed.

    Attributes:
        value: the number.
        step: the unit of its last digit; trailing zeros of a count are taken for rounding.
        text: as it stands in the file.
    """

    value: float
    step: float
    text: str = ""

    @property
    def low(self) -> float:
        """The smallest number that may have been rounded or truncated to this one."""
        return self.value - self.step

    @property
    def high(self) -> float:
        """The largest number that may have been rounded or truncated to this one."""
        return self.value + self.step


@dataclass(frozen=True, kw_only=True)
class Published:
    """Holds one published result; `prunebench.published` explains the columns.

    Attributes:
        dataset: the name of its file.
        figures: column -> figure, for those that are printed.
        doubt: columns of figures that contradict others.
    """

    id: str
    dataset: str
    model: str
    method: str
    paper: str
    year: str
    convention: str
    source: str
    notes: str
    quoted: bool
    beside: bool
    doubt: tuple[str, ...]
    figures: Mapping[str, Figure]

    def value(self, column: str) -> float | None:
        """Returns a figure that is not in doubt; None if there is none."""
        figure = self.figures.get(column)
        return None if figure is None or column in self.doubt else figure.value

    @property
    def drop(self) -> float | None:
        """The points lost, computed from the accuracies, or as printed if one is missing."""
        before, after = self.value("baseline_top1"), self.value("top1")
        if before is None or after is None:
            return self.value("drop")
        return before - after

    def reduction(self, cost: str) -> float | None:
        """Returns the percentage of `cost` removed: as printed, or by the counts or the factor."""
        if (printed := self.value(f"{cost}_reduction")) is not None:
            return printed
        before, after = self.value(f"{cost}_before"), self.value(f"{cost}_after")
        if before and after is not None:
            return 100.0 * (1.0 - after / before)
        factor = self.value(f"{cost}_factor")
        return 100.0 * (1.0 - 1.0 / factor) if factor else None


@cache
def load() -> tuple[Published, ...]:
    """Returns all rows, file by file; read once.

    Raises:
        DataError: as `read`.
    """
    files = sorted(Path(__file__).parent.glob("*.csv"))
    return tuple(row for file in files for row in read(file))


def read(file: Path) -> list[Published]:
    """Returns the rows of one file.

    Raises:
        DataError: a column is missing or unknown, or a figure is no number; the message names the
            row.
    """
    with file.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        for column in COLUMNS.symmetric_difference(reader.fieldnames or ()):
            state = "missing" if column in COLUMNS else "not known"
            raise DataError(f"{file.name}: column {column} is {state}")
        return [_row(line, file.stem) for line in reader]


def find(row_id: str) -> Published:
    """Returns the row with this id.

    Raises:
        DataError: there is none; the message suggests a similar one.
    """
    rows = {row.id: row for row in load()}
    if row_id not in rows:
        hint = unknown(row_id, rows).partition("; did you mean ")[2]
        advice = f"; did you mean {hint}" if hint else "; prunebench published lists them"
        raise DataError(f"no published row is called '{row_id}'{advice}")
    return rows[row_id]


def _row(line: Mapping[str, str], dataset: str) -> Published:
    row_id = line["id"]
    doubt = tuple(line["doubt"].split())
    for column in doubt:
        if not line.get(column):
            raise DataError(f"{dataset}.csv, {row_id}: doubt names {column}, which is empty")
    for mark in MARKS:
        if line[mark] not in ("yes", ""):
            raise DataError(f"{dataset}.csv, {row_id}: {mark} is 'yes' or empty")
    try:
        figures = {column: figure(line[column]) for column in FIGURES if line[column]}
    except ValueError as error:
        raise DataError(f"{dataset}.csv, {row_id}: {error}") from None
    words = {column: line[column] for column in WORDS}
    marks = {mark: line[mark] == "yes" for mark in MARKS}
    return Published(dataset=dataset, doubt=doubt, figures=figures, **words, **marks)  # type: ignore[arg-type]


def figure(text: str) -> Figure:
    """Returns a figure with the unit of its last digit: 93.4 with 0.1, 850000 with 10000.

    Raises:
        ValueError: it is no number.
    """
    decimals = len(text.partition(".")[2])
    zeros = 0 if decimals else len(text.lstrip("-")) - len(text.rstrip("0"))
    return Figure(float(text), 10.0 ** (zeros - decimals), text)
