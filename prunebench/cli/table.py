"""Implements ``prunebench table``: runs side by side, and how many jobs have not begun."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from prunebench.cli.mistakes import say
from prunebench.errors import DataError
from prunebench.records.below import below
from prunebench.records.unfinished import IDENTITY
from prunebench.reports import table
from prunebench.sweeps.plans import folders, sweep_in
from prunebench.sweeps.status import not_begun


def main(words: Sequence[str]) -> int:
    """Prints the table, and a line on each sweep with jobs that have not begun.

    Returns:
        The exit code.
    """
    code = table.main(words)
    places = [Path(word) for word in words if Path(word).is_dir()] or [Path("outputs")]
    for sweep in (found for place in places for found in folders(place)[0]):
        with suppress(DataError):  # a damaged sweep, which prunebench status reports
            jobs = sweep_in(sweep).jobs
            missing = len(not_begun(jobs, [path.parent for path in below(sweep, IDENTITY)]))
            if missing:
                say(
                    f"{missing} of {len(jobs)} jobs of {sweep} have not started: prunebench status "
                    f"{sweep} --resume prints the commands that complete it"
                )
    return code
