"""Implements ``prunebench table --compare``: which methods differ by more than chance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.errors import DataError
from prunebench.records import Report
from prunebench.records.identity import settings
from prunebench.records.predictions import read_predictions
from prunebench.reports.columns import Table
from prunebench.reports.difference import Difference, by_image, by_seed
from prunebench.reports.notes import CONTROL, CONTROLS, named
from prunebench.reports.rows import Row, counting
from prunebench.reports.stability import accuracy, stability

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: the stage that is compared
STAGE = "finetuned_last"
#: largest relative difference in MACs of two networks that count as equally costly
SAME_COST = 0.005
#: half-width of an interval, in points, for which the number of seeds is computed
WANTED = 0.2
#: sections of the configuration that belong to the method; in all others two runs must agree
OF_METHOD = ("criterion", "budget", "repair", "schedule", "name", "run", "tracker")

NOTHING = (
    "no two methods here can be compared: that takes fine-tuned runs of the same network, data, "
    "baselines and recipe, with MACs within 0.5 % of each other"
)
NOTES = (
    "Difference of the fine-tuned (last) test {}, first minus second, in points, with its 95 % "
    "interval; same baselines, recipe and MACs (within 0.5 %), paired by seed.",
    "Intervals are not corrected for multiple comparisons: of 20 equal pairs one will look "
    "different.",
)
BY_IMAGE = (
    "i: paired by image, too; seeds and images are both random, two-way analysis of variance with "
    "Satterthwaite's degrees of freedom (one seed: the images alone)."
)
BY_SEED = "s: paired t test over the seeds; the predictions were not kept."


def comparisons(rows: Sequence[Row]) -> Iterator[tuple[Row, Row, Difference]]:
    """Yields all pairs of rows whose methods can be compared, with their difference."""
    for ours, theirs in combinations([row for row in rows if row.seeds], 2):
        if (ours.model, ours.dataset) != (theirs.model, theirs.dataset) or not _same_cost(
            ours, theirs
        ):
            continue
        a, b = counting(ours.runs), counting(theirs.runs)
        seeds = [seed for seed in sorted({*a} & {*b}) if _same_start(a[seed][1], b[seed][1])]
        if seeds:
            yield ours, theirs, difference([a[seed] for seed in seeds], [b[seed] for seed in seeds])


def difference(
    ours: Sequence[tuple[Path, Report]], theirs: Sequence[tuple[Path, Report]]
) -> Difference:
    """Returns the difference of two methods; both lists of runs are in the order of the seeds."""
    import numpy as np

    sides = [[_answers(path, report) for path, report in runs] for runs in (ours, theirs)]
    known = [[one for one in side if one is not None] for side in sides]
    images = {len(one) for side in known for one in side}
    whole = all(len(side) == len(ours) for side in known)
    if whole and len(images) == 1 and min(images) > 1:
        return by_image(np.stack(known[0]), np.stack(known[1]))
    accuracies = [[accuracy(report, STAGE) for _, report in runs] for runs in (ours, theirs)]
    return by_seed(*accuracies)


def _answers(path: Path, report: Report) -> NDArray[np.bool_] | None:
    """Returns which predictions of a run are right, bool [images]; None if it kept none.

    Raises:
        DataError: the stored predictions do not agree with the report.
    """
    kept, measured = read_predictions(path, STAGE), report.at(STAGE)
    if kept is None or measured is None or measured.test is None:
        return None
    if (int(kept.correct.sum()), len(kept.correct)) != (measured.test.correct, measured.test.seen):
        raise DataError(f"the answers kept beside {path} are of another network than its figures")
    return kept.correct


def compared(rows: Sequence[Row]) -> Table:
    """Returns a table with one line per pair of comparable methods, largest difference first.

    Raises:
        DataError: there is no such pair, or stored predictions are damaged.
    """
    found = sorted(comparisons(rows), key=lambda pair: -abs(pair[2].points))
    if not found:
        raise DataError(NOTHING)
    many = len({(ours.model, ours.dataset) for ours, _, _ in found}) > 1
    names = _short_names([row for pair in found for row in pair[:2]])
    control = any(row.control for pair in found for row in pair[:2])
    lines = []
    for ours, theirs, gap in found:
        place = f"{ours.model} on {ours.dataset}: " if many else ""
        half = "?" if math.isinf(gap.half) else f"{gap.half:.2f}"
        needed = gap.seeds_to_see(WANTED)
        lines.append(
            [
                f"{place}{names[named(ours)]} - {names[named(theirs)]}",
                f"{gap.points:+.2f} ± {half}",
                gap.verdict,
                f"{gap.seeds} {'i' if gap.images else 's'}",
                "-" if needed is None else str(needed),
            ]
        )
    metrics = dict.fromkeys(ours.metric for ours, _, _ in found)
    notes = [line.format(" or ".join(metrics)) for line in NOTES]
    notes += [BY_IMAGE] if any(gap.images for *_, gap in found) else []
    notes += [BY_SEED] if not all(gap.images for *_, gap in found) else []
    notes += [CONTROLS] if control else []
    notes.append(f"Last column: seeds needed for an interval of ± {WANTED} points; -: unknown.")
    notes += stability([(ours, theirs) for ours, theirs, _ in found], STAGE)
    headers = ["pair", "difference", "verdict", "seeds", f"seeds for {WANTED}"]
    return Table(headers, lines, notes)


def _short_names(rows: Sequence[Row]) -> dict[str, str]:
    """Returns full name -> name without the parts that all `rows` share."""
    alike = set.intersection(*({*row.method.split(", ")} for row in rows))
    found = {}
    for row in rows:
        own = [word for word in row.method.split(", ") if word not in alike]
        details = f" [{row.details}]" if row.details else ""
        name = (", ".join(own) or row.method) + details
        found[named(row)] = name + (CONTROL if row.control else "")
    return found


def _same_cost(ours: Row, theirs: Row) -> bool:
    """Returns whether both rows have an accuracy at `STAGE`, and MACs that count as equal."""
    if not (ours.macs and theirs.macs and ours.macs.after and theirs.macs.after):
        return False
    known = STAGE in ours.top1 and STAGE in theirs.top1
    one, other = ours.macs.after.mean, theirs.macs.after.mean
    return known and abs(one - other) <= SAME_COST * other


def _same_start(ours: Report, theirs: Report) -> bool:
    """Returns whether two runs have the same baseline and the same recipe."""
    bases = [report.at("baseline") for report in (ours, theirs)]
    known = [base.test.correct for base in bases if base is not None and base.test is not None]
    return (
        len(known) == 2
        and known[0] == known[1]
        and _without_method(ours) == _without_method(theirs)
    )


def _without_method(report: Report) -> Mapping[str, object]:
    """Returns the settings that decide a result and are not part of the method."""
    return {
        key: value
        for key, value in settings(report).items()
        if key.partition(".")[0] not in OF_METHOD
    }
