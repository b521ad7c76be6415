"""Finds the Pareto front: the points that no other beats in both cost and accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from prunebench.reports.figures import Change, Spread
from prunebench.reports.rows import Row

Point = tuple[float, float]
#: cost -> title of its axis
COSTS = {"macs": "MACs", "params": "parameters", "latency": "latency, ms"}


def front(points: Sequence[Point]) -> list[Point]:
    """Returns those of `points` (cost, accuracy) that no other beats in both, cheapest first."""
    best: list[Point] = []
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or accuracy > best[-1][1]:
            best.append((cost, accuracy))
    return best


def change_of(row: Row, cost: str, batch: int = 1) -> Change | None:
    """Returns the `cost` (a key of `COSTS`) before and after; a latency is that at `batch`."""
    if cost == "latency":
        return row.latency.get(batch)
    return row.macs if cost == "macs" else row.params


def accuracy_of(row: Row) -> Spread | None:
    """Returns a row's final accuracy: fine-tuned, else published, repaired or pruned."""
    stages = ("finetuned_last", "published", "repaired", "pruned")
    return next((row.top1[stage] for stage in stages if stage in row.top1), None)
