"""Plots kept channels, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from prunebench.errors import DataError
from prunebench.records import Report
from prunebench.records.identity import whole
from prunebench.reports.notes import label
from prunebench.reports.plot.canvas import COLOURS, legend, look, sheet, title, told_apart
from prunebench.reports.rows import Row, counting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: largest number of layer names that can be read below one another
NAMED = 40


def channels(rows: Sequence[Row]) -> Figure:
    """Returns bars before and after for one run; for several rows, the shares that they keep.

    Raises:
        DataError: no run was pruned, or the networks have different layers.
    """
    shown = [(row, [run for _, run in counting(row.runs).values()]) for row in rows if row.runs]
    runs = [run for _, own in shown for run in own if run.layers]
    if not runs:
        raise DataError("no run has finished, so there are no layers to plot")
    names = [layer.name for layer in runs[0].layers]
    if any([layer.name for layer in run.layers] != names for run in runs):
        models = ", ".join(dict.fromkeys(row.model for row, _ in shown))
        raise DataError(f"these networks have different layers: {models}; give runs of one")
    place = f"{shown[0][0].model} on {shown[0][0].dataset}"
    if len(runs) == 1:
        figure, [axes] = sheet([_height(len(names))])
        _bars(axes, runs[0])
        title(axes, place)
    else:
        names = [name for name in names if any(_cut(run, name) for run in runs)] or names
        figure, [axes] = sheet([_height(len(names))])
        shown = [(row, own) for row, own in shown if not any(map(whole, own))] or shown
        texts, shared = told_apart([label(row, {}) for row, _ in shown])
        _shares(axes, list(zip(texts, [own for _, own in shown], strict=True)), names)
        title(axes, place, shared)
    axes.set_yticks(*_ticks(names), fontsize=6 if len(names) > 24 else 7)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    legend(axes)
    return figure


def _height(layers: int) -> float:
    return min(1.2 + 0.13 * layers, 6.5)


def _cut(run: Report, name: str) -> bool:
    """Returns whether the layer `name` loses channels."""
    return any(one.channels_after < one.channels_before for one in run.layers if one.name == name)


def _ticks(names: Sequence[str]) -> tuple[list[int], list[str]]:
    """Returns the positions of the layers to name, and their names."""
    step = -(-len(names) // NAMED)
    return list(range(0, len(names), step)), [name.replace("$", r"\$") for name in names[::step]]


def _bars(axes: Axes, run: Report) -> None:
    """Draws each layer's channels, and over them those that stay."""
    places = range(len(run.layers))
    before = [layer.channels_before for layer in run.layers]
    after = [layer.channels_after for layer in run.layers]
    axes.barh(places, before, color="#d5d5d5", label="dense")
    axes.barh(places, after, height=0.55, color=COLOURS[0], label="kept")
    axes.set_xlabel("channels")


def _shares(axes: Axes, rows: Sequence[tuple[str, Sequence[Report]]], names: Sequence[str]) -> None:
    """Draws the share of channels that each layer of `names` keeps, as the mean over seeds."""
    for number, (text, runs) in enumerate(rows):
        kept: dict[str, list[float]] = {name: [] for name in names}
        for layer in (layer for run in runs for layer in run.layers if layer.name in kept):
            kept[layer.name].append(100 * layer.channels_after / layer.channels_before)
        shares = [fmean(values) for values in kept.values()]
        axes.plot(shares, range(len(shares)), label=text, lw=0.8, **look(number))
    axes.set_xlabel("channels kept, %")
    axes.set_xlim(0, 103)
