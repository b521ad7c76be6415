"""Measures whether different seeds put the same methods in the same order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from statistics import fmean

from prunebench.records import Report
from prunebench.reports.cells import amount
from prunebench.reports.rows import Row, counting

#: fewest methods for which an order is worth reporting
FEWEST = 3


def stability(pairs: Sequence[tuple[Row, Row]], stage: str) -> Iterator[str]:
    """Yields a line per set of comparable methods on how far seeds agree on their order.

    The measure is Kendall's tau (b, which allows for ties) between the orders for two seeds,
    averaged over all pairs of the seeds that all of these methods were run with. Methods run once
    are left out.
    """
    groups = [[row for row in group if len(counting(row.runs)) > 1] for group in _together(pairs)]
    for group in [group for group in groups if len(group) >= FEWEST]:
        runs = [counting(row.runs) for row in group]
        seeds = sorted(set.intersection(*({*one} for one in runs)))
        orders = [[accuracy(one[seed][1], stage) for one in runs] for seed in seeds]
        taus = [_tau(a, b) for a, b in combinations(orders, 2)]
        if taus:
            row = group[0]
            after = amount(row.macs.after) if row.macs else ""
            yield (
                f"Kendall's tau between the orders of {len(group)} methods for two seeds "
                f"({row.model} on {row.dataset}, {after} MACs): mean {fmean(taus):.2f}, least "
                f"{min(taus):.2f}, over {len(taus)} pair{'s' if len(taus) > 1 else ''} of seeds; "
                "1: the same order, 0: no agreement."
            )


def _together(pairs: Sequence[tuple[Row, Row]]) -> list[list[Row]]:
    """Returns groups of rows that are comparable with each other, directly or through others."""
    groups: list[list[Row]] = []
    for pair in pairs:
        merged = list(pair)
        apart = []
        for group in groups:
            if any(one is other for one in pair for other in group):
                merged += group
            else:
                apart.append(group)
        groups = [*apart, list({id(row): row for row in merged}.values())]
    return groups


def accuracy(report: Report, stage: str) -> float:
    """Returns the test accuracy at `stage` in percent; 0 if there is none."""
    measured = report.at(stage)
    return measured.test.accuracy if measured and measured.test else 0.0


def _tau(one: Sequence[float], other: Sequence[float]) -> float:
    """Returns Kendall's tau; 0 if all methods tie in one of the orders."""
    from scipy.stats import kendalltau

    found = float(kendalltau(one, other).statistic)
    return 0.0 if found != found else found
