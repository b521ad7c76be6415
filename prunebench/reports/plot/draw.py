"""Draws a plot of runs, given its kind, into a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.reports.load import load_runs
from prunebench.reports.plot.canvas import check_plotting, save, style
from prunebench.reports.plot.channels import channels
from prunebench.reports.plot.faces import roc
from prunebench.reports.plot.pareto import Cost, pareto
from prunebench.reports.plot.progress import progress
from prunebench.reports.plot.sensitive import sensitivity
from prunebench.reports.plot.speedup import speedup
from prunebench.reports.rows import Row, rows_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: kind -> what it shows
KINDS = {
    "pareto": "accuracy against a cost, with the front and published points",
    "channels": "kept channels of each layer",
    "curves": "accuracies epoch by epoch, with the cuts (from metrics.jsonl)",
    "sensitivity": "accuracy with one group pruned at a time (experiment=sensitivity)",
    "roc": "acceptance of pairs of faces",
    "speedup": "measured speed-up against the reduction of MACs",
}


def plot(
    runs: Sequence[str | os.PathLike[str]],
    kind: str,
    path: Path,
    cost: Cost,
    *,
    published: bool = True,
) -> None:
    """Draws a plot of `kind` (a key of `KINDS`) of all runs at the paths `runs` into `path`.

    Raises:
        ConfigError: the suffix is not a picture's, or matplotlib is not installed.
        DataError: there is no run, nothing to plot, or the file cannot be written.
    """
    check_plotting(path)
    found = load_runs(runs)
    rows = rows_of(found.reports, [])
    with style():
        save(drawn(rows, kind, cost, published=published), path)


def drawn(rows: Sequence[Row], kind: str, cost: Cost, *, published: bool) -> Figure:
    """Returns the figure of `kind`, a key of `KINDS`."""
    if kind == "pareto":
        return pareto(rows, cost, published=published)
    others: dict[str, Callable[[Sequence[Row]], Figure]] = {
        "channels": channels,
        "curves": progress,
        "sensitivity": sensitivity,
        "roc": roc,
        "speedup": speedup,
    }
    return others[kind](rows)
