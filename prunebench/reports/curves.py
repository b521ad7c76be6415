"""Reads a run's course of accuracies from the log of metrics beside its report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prunebench.errors import DataError
from prunebench.records.metrics import read_metrics
from prunebench.records.unfinished import METRICS
from prunebench.tracking.curves import AXIS, Curves

#: curve -> its title
TITLES = {"train": "training", "val": "validation", "test": "test"}
#: how the names of stages that cut channels begin
CUTS = ("prune-", "pruning-end")
Point = tuple[float, float]


@dataclass(frozen=True)
class Course:
    """Holds accuracies over a run; x is epochs since its beginning.

    Attributes:
        curves: ``train``, ``val``, ``test`` -> points (epoch, accuracy in percent).
        cuts: epoch and name of each stage that cut channels.
    """

    curves: dict[str, list[Point]]
    cuts: list[tuple[float, str]]


def course_of(report: Path) -> Course | None:
    """Returns the course of the run with the file `report`; None if there is no log beside it.

    Raises:
        DataError: the log is damaged.
    """
    tracked = Curves()
    curves: dict[str, list[Point]] = {}
    cuts = []
    try:
        for row in read_metrics(report.with_name(METRICS)):
            values = tracked.values(row)
            if str(row["stage"]).startswith(CUTS):
                cuts.append((values[AXIS], str(row["stage"])))
            for key, value in values.items():
                kind, _, what = key.partition("/")
                if kind in TITLES and what != "loss":
                    curves.setdefault(kind, []).append((values[AXIS], value))
    except (KeyError, TypeError, ZeroDivisionError):
        raise DataError(f"{report.with_name(METRICS)} is not a log of metrics") from None
    return Course(curves, cuts) if curves else None
