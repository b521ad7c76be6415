"""Plots accuracy against cost: every method, and the front that none of the runs beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from prunebench.errors import DataError
from prunebench.published.nets import TIERS
from prunebench.reports.front import COSTS, accuracy_of, change_of, front
from prunebench.reports.notes import label
from prunebench.reports.plot.canvas import GREY, legend, look, sheet, title, told_apart
from prunebench.reports.published import beside_with_tiers
from prunebench.reports.rows import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: largest number of panels in a figure
PANELS = 6
#: tier of a published row -> its marker, weakest to strongest
TIER_MARKERS = dict(zip(TIERS, "x+1*", strict=True))


@dataclass(frozen=True)
class Cost:
    """Names the cost on the x axis; `batch` is that of a latency."""

    name: str = "macs"
    batch: int = 1

    @property
    def title(self) -> str:
        """The title of the axis."""
        return COSTS[self.name] + (f", batch {self.batch}" if self.name == "latency" else "")


def pareto(rows: Sequence[Row], cost: Cost, *, published: bool) -> Figure:
    """Returns a figure with a panel for each network and data set.

    Raises:
        DataError: no row has both figures, or there are too many panels.
    """
    shown = [row for row in rows if change_of(row, cost.name, cost.batch) and accuracy_of(row)]
    places = list(dict.fromkeys((row.model, row.dataset) for row in shown))
    if not places:
        raise DataError(f"no run has been pruned and has both accuracy and {cost.title}")
    if len(places) > PANELS:
        raise DataError(
            f"{len(places)} networks and data sets are too many for one plot; give the runs of up "
            f"to {PANELS}"
        )
    rows_of_places = [
        [row for row in shown if (row.model, row.dataset) == place] for place in places
    ]
    figure, panels = sheet([2.5] * len(rows_of_places))
    for axes, own in zip(panels, rows_of_places, strict=True):
        _panel(axes, own, cost, published=published)
    return figure


def _panel(axes: Axes, rows: Sequence[Row], cost: Cost, *, published: bool) -> None:
    """Draws the rows of one network and data set."""
    if published and cost.name != "latency":
        _published(axes, rows, cost)
    points = []
    series = _series(rows)
    names, shared = told_apart(list(series))
    for number, (name, some) in enumerate(zip(names, series.values(), strict=True)):
        ends = sorted(_end(row, cost) for row in some)
        points += [(x, y) for x, y, _ in ends]
        xs, ys, spreads = zip(*ends, strict=True)
        style: dict[str, Any] = {"capsize": 2, "lw": 0.8, "elinewidth": 0.8, **look(number)}
        axes.errorbar(xs, ys, yerr=spreads, label=name, **style)
    points += _dense(axes, rows, cost)
    steps = zip(*front(points), strict=True)
    axes.step(*steps, where="post", color="black", lw=0.7, zorder=0, label="front of our runs")
    title(axes, f"{rows[0].model} on {rows[0].dataset}", shared)
    axes.set_xlabel(cost.title)
    axes.set_ylabel(f"{rows[0].metric}, %")
    axes.set_xlim(left=0)
    if cost.name != "latency":
        from matplotlib.ticker import EngFormatter

        axes.xaxis.set_major_formatter(EngFormatter())
    legend(axes)


def _series(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Returns name -> rows that differ only in how much they prune."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        own = [part for part in row.details.split(", ") if not part.startswith("budget.")]
        found.setdefault(label(replace(row, details=", ".join(own)), {}), []).append(row)
    return found


def _end(row: Row, cost: Cost) -> tuple[float, float, float]:
    """Returns cost, accuracy and its spread (0 for one seed) after pruning."""
    change, accuracy = change_of(row, cost.name, cost.batch), accuracy_of(row)
    assert change and change.after and accuracy
    return change.after.mean, accuracy.mean, accuracy.std or 0.0


def _dense(axes: Axes, rows: Sequence[Row], cost: Cost) -> list[tuple[float, float]]:
    """Draws the baseline, as the mean over rows; returns its point, or nothing if unknown."""
    found = [
        (change.before.mean, row.top1["baseline"].mean)
        for row in rows
        if (change := change_of(row, cost.name, cost.batch))
        and change.before
        and "baseline" in row.top1
    ]
    if not found:
        return []
    xs, ys = zip(*found, strict=True)
    point = sum(xs) / len(xs), sum(ys) / len(ys)
    axes.plot(*point, marker="p", color="black", ms=6, ls="none", label="not pruned")
    return [point]


def _published(axes: Axes, rows: Sequence[Row], cost: Cost) -> None:
    """Draws published figures of this network, with one marker per tier."""
    by_tier: dict[str, list[tuple[float, float]]] = {}
    for strength, row in beside_with_tiers(rows):
        change, accuracy = change_of(row, cost.name), accuracy_of(row)
        if change and change.after and accuracy:
            by_tier.setdefault(strength, []).append((change.after.mean, accuracy.mean))
    for tier, points in by_tier.items():
        xs, ys = zip(*points, strict=True)
        axes.scatter(
            xs,
            ys,
            marker=TIER_MARKERS[tier],
            color=GREY,
            s=16,
            linewidths=0.8,
            label=f"published: {tier}",
            zorder=1,
        )
