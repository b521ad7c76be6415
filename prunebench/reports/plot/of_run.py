"""Draws the plots of a single run, for its tracker."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from prunebench.errors import DataError
from prunebench.records import Report
from prunebench.reports.plot.canvas import style
from prunebench.reports.plot.draw import drawn
from prunebench.reports.plot.pareto import Cost
from prunebench.reports.rows import row_of

#: kinds of plot that make sense for a single run
ALONE = ("channels", "curves", "sensitivity", "roc")


def plots_of(path: Path, report: Report) -> Mapping[str, bytes]:
    """Returns kind -> PNG of the plots of the run whose `report` lies at `path`."""
    found = {}
    for kind in ALONE:
        with suppress(DataError), style():  # the run has no data for this kind
            file = io.BytesIO()
            figure = drawn([row_of(path, report)], kind, Cost(), published=False)
            figure.savefig(file, format="png", dpi=200)
            found[kind] = file.getvalue()
    return found
