"""Plots what a network loses when a single group of channels is cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prunebench.errors import DataError
from prunebench.records import Report, SensitivityPoint
from prunebench.reports.plot.canvas import sheet, title
from prunebench.reports.rows import Row, counting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: heights of a group in the heat map, and of the rest, in inches
LINE, REST = 0.13, 0.9


def sensitivity(rows: Sequence[Row]) -> Figure:
    """Returns a curve per group, coloured by depth, and the same data as a heat map below.

    Raises:
        DataError: not exactly one run has measured sensitivity.
    """
    found = [
        (row, run)
        for row in rows
        for _, run in counting(row.runs).values()
        if run.sensitivity and run.at("baseline")
    ]
    if len(found) != 1:
        hint = "prunebench experiment=sensitivity measures it" if not found else "give one report"
        raise DataError(f"{len(found)} of these runs have measured sensitivity; {hint}")
    [(row, run)] = found
    groups: dict[str, list[SensitivityPoint]] = {}
    for point in run.sensitivity or ():
        groups.setdefault(point.group, []).append(point)
    figure, [curves, heat] = sheet([2.0, min(LINE * len(groups) + REST, 5.5)])
    dense = _dense(run)
    _curves(curves, groups, dense)
    _heat(heat, groups, dense)
    title(curves, f"{row.model} on {row.dataset}", f"criterion {run.choices.get('criterion')}")
    return figure


def _dense(run: Report) -> float:
    """Returns the validation accuracy of the dense network, in percent.

    Raises:
        DataError: it was not measured.
    """
    measured = run.at("baseline")
    if measured is None or measured.val is None:
        raise DataError("this run has no accuracy of its baseline on validation images")
    return measured.val.accuracy


def _curves(axes: Axes, groups: dict[str, list[SensitivityPoint]], dense: float) -> None:
    """Draws accuracy against the share of channels cut."""
    from matplotlib import colormaps

    shades = colormaps["viridis"]
    for number, points in enumerate(groups.values()):
        gone = [0.0, *(100 * (1 - point.kept / point.channels) for point in points)]
        accuracies = [dense, *(point.accuracy for point in points)]
        shade = shades(0.95 * number / max(len(groups) - 1, 1))
        axes.plot(gone, accuracies, color=shade, marker="o", ms=2.5, lw=0.9)
    axes.set_xlabel("channels cut, % (dark: first layers, light: last)")
    axes.set_ylabel("validation accuracy, %")


def _heat(axes: Axes, groups: dict[str, list[SensitivityPoint]], dense: float) -> None:
    """Draws the points lost for every group and share."""
    lost = [[dense - point.accuracy for point in points] for points in groups.values()]
    values = [points for row in lost for points in row]
    ends = (min(0.0, *values), max(1.0, *values))  # so that a loss near 0 looks like none
    image = axes.imshow(lost, aspect="auto", cmap="cividis_r", vmin=ends[0], vmax=ends[1])
    gone = [f"{100 * (1 - point.share):.0f}" for point in next(iter(groups.values()))]
    axes.set_xticks(range(len(gone)), gone)
    small = 6 if len(groups) > 24 else 7
    axes.set_yticks(range(len(groups)), [name.replace("$", r"\$") for name in groups], size=small)
    axes.grid(visible=False)
    axes.set_xlabel("channels cut, % (rounded to whole ones)")
    axes.figure.colorbar(image, ax=axes, label="points lost")
