"""Plots ROC curves of networks that tell whether two faces belong to the same person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prunebench.errors import DataError
from prunebench.reports.notes import label
from prunebench.reports.plot.canvas import COLOURS, legend, sheet, shortened
from prunebench.reports.rows import Row, counting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: stage -> line style of its curve
LINES = {"baseline": ":", "finetuned_last": "-"}


def roc(rows: Sequence[Row]) -> Figure:
    """Returns true against false acceptance of every run, before (dotted) and after pruning.

    Raises:
        DataError: no run was tested on pairs of faces.
    """
    figure, [axes] = sheet([2.6])
    number = 0
    for row in rows:
        for _, report in counting(row.runs).values():
            for stage, line in LINES.items():
                measured = report.at(stage)
                for name, found in (measured and measured.verification or {}).items():
                    ends = "before" if stage == "baseline" else "after"
                    text = shortened(f"{label(row, {})}, {name.upper()}, {ends}")
                    points = [(far, tar) for far, tar in found.roc if far > 0]
                    if points:
                        colour = COLOURS[number % len(COLOURS)]
                        axes.plot(*zip(*points, strict=True), line, color=colour, label=text)
            number += 1
    if not axes.lines:
        raise DataError("no run was tested on pairs of faces, so there is no ROC curve")
    axes.set_xscale("log")
    axes.set_xlabel("false acceptance rate")
    axes.set_ylabel("true acceptance rate")
    legend(axes)
    return figure
