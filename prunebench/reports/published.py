"""Published figures, read from ``conf/published``; data to stand beside runs.

The files end in ``.yml``, which Hydra does not take for options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from prunebench.errors import DataError
from prunebench.reports.figures import Change, Spread
from prunebench.reports.rows import Row

#: how far a printed percentage may lie from the printed counts, in points, to allow for rounding
ROUNDING_POINTS = 0.6


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published result; None where the source gives no figure.

    Attributes:
        model, dataset: names of our options with the same network and data.
        method: as its authors call it.
        source: where the figures stand.
        convention: what is counted as a MAC, and on which samples the accuracy was chosen.
        metric: of the accuracies.
        top1: percent; of the pruned and fine-tuned network.
        baseline_top1, baseline_params, baseline_macs: of the unpruned network.
        params, macs: of the pruned network.
        params_reduction, macs_reduction: percent, where the source prints percentages.
    """

    model: str
    dataset: str
    method: str
    source: str
    convention: str
    metric: str
    top1: float | None
    baseline_top1: float | None
    baseline_params: float | None
    baseline_macs: float | None
    params: float | None
    macs: float | None
    params_reduction: float | None
    macs_reduction: float | None

    def row(self) -> Row:
        """Returns the figures as a row; only what the source gives, or what follows from it."""
        drop = None
        if self.top1 is not None and self.baseline_top1 is not None:
            drop = Spread(self.baseline_top1 - self.top1)
        top1 = {"published": self.top1, "baseline": self.baseline_top1}
        return Row(
            model=self.model,
            dataset=self.dataset,
            method=self.method,
            top1={stage: Spread(value) for stage, value in top1.items() if value is not None},
            drop=drop,
            params=_change(self.baseline_params, self.params, self.params_reduction),
            macs=_change(self.baseline_macs, self.macs, self.macs_reduction),
            convention=self.convention,
            note="" if self.metric == "top-1" else self.metric,
            source=self.source,
        )


def load_published(folder: Path) -> list[Published]:
    """Returns all published results below `folder`, in order of file and place.

    Raises:
        DataError: a field is missing, unknown or of the wrong type, or a percentage contradicts
            the counts beside it (the message names file and row).
    """
    import yaml

    found = []
    for path in sorted(folder.glob("*.yml")):
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise DataError(f"{path} is not valid YAML ({error})".replace("\n", " ")) from None
        rows = content.get("rows") if isinstance(content, Mapping) else None
        if not isinstance(rows, Sequence):
            raise DataError(f"{path} has no list 'rows'")
        found += [_checked(row, path.name, number) for number, row in enumerate(rows, start=1)]
    return found


def beside(rows: Sequence[Row], published: Sequence[Published]) -> list[Row]:
    """Returns the published rows for the networks and data of `rows`.

    Where both baselines' sizes are known they must agree within 5 %: a narrow network is not set
    beside the full one's results.
    """
    sizes: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        known = sizes.setdefault((row.model, row.dataset), [])
        if row.params and row.params.before:
            known.append(row.params.before.mean)
    chosen = []
    for one in published:
        ours = sizes.get((one.model, one.dataset))
        if ours is None:
            continue
        theirs = one.baseline_params
        if theirs is None or not ours or any(abs(size / theirs - 1) <= 0.05 for size in ours):
            chosen.append(one.row())
    return chosen


def _checked(values: Any, file: str, number: int) -> Published:
    where = f"{file}, row {number}"
    if not isinstance(values, Mapping):
        raise DataError(f"{where} must hold keys and values")
    wanted = {f.name: str(f.type) for f in fields(Published)}
    for key in [*wanted, *values]:
        if key not in values:
            raise DataError(f"{where}: {key} is missing (null if the source gives none)")
        if key not in wanted:
            raise DataError(f"{where}: {key} is not a known field")
        kinds = (str,) if wanted[key] == "str" else (int, float, type(None))
        if not isinstance(values[key], kinds) or isinstance(values[key], bool):
            raise DataError(f"{where}: {key} must be {wanted[key]}, got {values[key]!r}")
        if wanted[key] == "str" and not values[key]:
            raise DataError(f"{where}: {key} must not be empty")
    one = Published(**{str(key): value for key, value in values.items()})
    for name, before, after, printed in (
        ("params_reduction", one.baseline_params, one.params, one.params_reduction),
        ("macs_reduction", one.baseline_macs, one.macs, one.macs_reduction),
    ):
        if before and after is not None and printed is not None:
            counted = 100.0 * (1.0 - after / before)
            if abs(counted - printed) > ROUNDING_POINTS:
                raise DataError(
                    f"{where}: {name} is {printed}, but the counts beside it give {counted:.1f}"
                )
    return one


def _change(before: float | None, after: float | None, printed: float | None) -> Change | None:
    reduction = printed
    if reduction is None and before and after is not None:
        reduction = 100.0 * (1.0 - after / before)
    parts = [None if value is None else Spread(value) for value in (before, after, reduction)]
    return Change(*parts) if any(parts) else None
