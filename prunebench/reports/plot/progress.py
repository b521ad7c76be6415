"""Plots accuracies over training, with the cuts marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prunebench.errors import DataError
from prunebench.reports.curves import TITLES, Course, course_of
from prunebench.reports.notes import label
from prunebench.reports.plot.canvas import COLOURS, GREY, legend, sheet, title, told_apart
from prunebench.reports.rows import Row, counting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: largest number of runs whose curves can be told apart
RUNS = 8


def progress(rows: Sequence[Row]) -> Figure:
    """Returns all curves of one run; of several runs, the validation (or training) curves.

    Raises:
        DataError: no run has its log of metrics, or there are too many.
    """
    found = [
        (f"{label(row, {})}, seed {report.seed}", course)
        for row in rows
        for path, report in counting(row.runs).values()
        if (course := course_of(path))
    ]
    if not found:
        raise DataError("no metrics.jsonl lies beside these reports, so there are no curves")
    if len(found) > RUNS:
        raise DataError(f"{len(found)} runs are too many for one plot; give up to {RUNS}")
    from matplotlib.ticker import MaxNLocator

    figure, [axes] = sheet([2.4])
    if len(found) == 1:
        _draw_one(axes, found[0][1])
        title(axes, found[0][0])
    else:
        texts, shared = told_apart([name for name, _ in found])
        _draw_several(axes, list(zip(texts, [course for _, course in found], strict=True)))
        title(axes, shared)
    axes.set_xlabel("epochs since the run began")
    axes.set_ylabel("accuracy, %")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(axes)
    return figure


def _draw_one(axes: Axes, course: Course) -> None:
    """Draws training, validation and test accuracy of one run, and its cuts."""
    for number, (kind, name) in enumerate(TITLES.items()):
        points = course.curves.get(kind, [])
        if points:
            dots: dict[str, Any] = {"marker": "D", "linestyle": "none"} if kind == "test" else {}
            axes.plot(*zip(*points, strict=True), color=COLOURS[number], label=name, **dots)
    marked = [epoch for epoch, _ in course.cuts]
    for number, epoch in enumerate(dict.fromkeys(marked)):
        axes.axvline(epoch, color=GREY, ls="--", lw=0.8, label="" if number else "channels go")


def _draw_several(axes: Axes, found: Sequence[tuple[str, Course]]) -> None:
    """Draws one curve per run; diamonds mark the cuts."""
    for number, (name, course) in enumerate(found):
        points = course.curves.get("val") or course.curves.get("train") or course.curves["test"]
        xs, ys = zip(*points, strict=True)
        marks = [max((i for i, x in enumerate(xs) if x <= at), default=0) for at, _ in course.cuts]
        axes.plot(xs, ys, color=COLOURS[number], label=name, marker="D", markevery=marks)
