"""Plots measured speed-up against the reduction of MACs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prunebench.errors import DataError
from prunebench.records.measurement import BUSY
from prunebench.reports.plot.canvas import GREY, legend, look, sheet
from prunebench.reports.rows import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def speedup(rows: Sequence[Row]) -> Figure:
    """Returns the figure; on its diagonal, a network is as much faster as its MACs are fewer.

    Points are open where the machine was too busy for its times to be trusted.

    Raises:
        DataError: no run has latencies before and after.
    """
    figure, [axes] = sheet([2.9])
    batches = sorted({batch for row in rows for batch in row.latency})
    most = 1.0
    for number, batch in enumerate(batches):
        for quiet in (True, False):
            points = [
                (row.macs.before.mean / row.macs.after.mean, time.before.mean / time.after.mean)
                for row in rows
                if (row.restlessness <= BUSY) is quiet
                and (time := row.latency.get(batch))
                and time.before
                and time.after
                and row.macs
                and row.macs.before
                and row.macs.after
            ]
            if not points:
                continue
            most = max(most, *(max(point) for point in points))
            style = look(number)
            text = f"batch {batch}" + ("" if quiet else ", busy machine")
            axes.plot(
                *zip(*points, strict=True),
                ls="none",
                label=text,
                mfc=style["color"] if quiet else "none",
                **style,
            )
    if not axes.lines:
        raise DataError("no run has latencies before and after on one machine")
    axes.plot([1, most], [1, most], color=GREY, lw=0.8, ls="--", label="as fast as counted")
    axes.axhline(1, color=GREY, lw=0.8, ls=":")
    axes.set_xlabel("MACs, times fewer")
    axes.set_ylabel("measured, times faster")
    legend(axes)
    return figure
