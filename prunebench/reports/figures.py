"""Computes means and spreads over several runs, before and after pruning."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Holds a mean over runs and the sample standard deviation (n - 1), None for a single run."""

    mean: float
    std: float | None = None


@dataclass(frozen=True)
class Change:
    """Holds a cost before and after; `reduction` is in percent of each run's own baseline."""

    before: Spread | None
    after: Spread | None
    reduction: Spread | None


def spread(values: Iterable[float]) -> Spread | None:
    """Returns mean and sample standard deviation of `values`; None if there are none."""
    found = list(values)
    if not found:
        return None
    mean = math.fsum(found) / len(found)
    if len(found) == 1:
        return Spread(mean)
    squares = math.fsum((value - mean) ** 2 for value in found)
    return Spread(mean, math.sqrt(squares / (len(found) - 1)))


def change(pairs: Sequence[tuple[float, float]]) -> Change | None:
    """Returns the change over runs, each a pair (before, after); None if there are none."""
    if not pairs:
        return None
    return Change(
        spread(before for before, _ in pairs),
        spread(after for _, after in pairs),
        spread(100.0 * (1.0 - after / before) for before, after in pairs if before),
    )
