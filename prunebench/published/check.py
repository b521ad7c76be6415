"""Checks every published row against itself, other rows of its source, and our own networks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prunebench.published.nets import Net, nets_of
from prunebench.published.record import Figure, Published

#: cost -> its name in messages
COSTS = {"params": "parameters", "macs": "MACs"}
#: largest relative difference of a baseline's count from our network's: heads and shortcuts vary
NEAR = 0.08
#: allowance for rounding in floating point
ROUNDING = 1e-9
#: smallest and largest number that a printed figure may stand for
Range = tuple[float, float]


@dataclass(frozen=True)
class Finding:
    """Describes a contradiction.

    Attributes:
        row: in which it is.
        columns: the figures that cannot all be right.
        text: what is wrong.
    """

    row: Published
    columns: tuple[str, ...]
    text: str

    @property
    def marked(self) -> bool:
        """Whether the row's column ``doubt`` names one of the figures."""
        return any(column in self.row.doubt for column in self.columns)


def findings(rows: Sequence[Published]) -> list[Finding]:
    """Returns every contradiction in `rows`, in the order of the rows."""
    found = defaultdict(list)
    for finding in [*_differing_baselines(rows), *_copied_baselines(rows)]:
        found[finding.row.id].append(finding)
    for row in rows:
        found[row.id] += _accuracies(row)
        for cost in COSTS:
            found[row.id] += [*_changes(row, cost), *_networks(row, cost)]
    return [finding for row in rows for finding in found[row.id]]


def _accuracies(row: Published) -> Iterator[Finding]:
    """Yields a finding if the printed drop is not the difference of the accuracies."""
    columns = ("baseline_top1", "top1", "drop")
    before, after, drop = (row.figures.get(column) for column in columns)
    if before and after and drop:
        # accuracies are rounded, never truncated: half a unit of the last digit each
        slack = (before.step + after.step + drop.step) / 2
        if abs(before.value - after.value - drop.value) > slack + ROUNDING:
            yield Finding(
                row,
                columns,
                f"{before.value:.2f} to {after.value:.2f} % is a drop of "
                f"{before.value - after.value:.2f} points, printed {drop.value:.2f}",
            )


def _changes(row: Published, cost: str) -> Iterator[Finding]:
    """Yields findings if counts, percentage and factor contradict each other."""
    columns = {what: f"{cost}_{what}" for what in ("before", "after", "reduction", "factor")}
    before, after, reduction, factor = (row.figures.get(name) for name in columns.values())
    kept: dict[tuple[str, ...], tuple[Range, str]] = {}
    if before and after:
        percent = 100 * (after.value / before.value - 1)
        text = f"{_count(before)} to {_count(after)} is {percent:+.1f} %"
        share = (after.low / before.high, after.high / before.low)
        kept[columns["before"], columns["after"]] = share, text
        if after.low > before.high:
            yield Finding(row, (columns["before"], columns["after"]), f"{COSTS[cost]} grow: {text}")
    if reduction:
        share = (1 - reduction.high / 100, 1 - reduction.low / 100)
        kept[(columns["reduction"],)] = share, f"printed {-reduction.value:+g} %"
    if factor:
        share = (1 / factor.high, 1 / factor.low)
        kept[(columns["factor"],)] = share, f"printed {factor.value:g}x"
    ways = list(kept)
    for i, one in enumerate(ways):
        for other in ways[i + 1 :]:
            if not _overlap(kept[one][0], kept[other][0]):
                text = f"{COSTS[cost]}: {kept[one][1]}, {kept[other][1]}"
                yield Finding(row, (*one, *other), text)


def _networks(row: Published, cost: str) -> Iterator[Finding]:
    """Yields a finding if the baseline's count, printed or implied, is not our network's."""
    nets = nets_of(row)
    before, after = row.figures.get(f"{cost}_before"), row.figures.get(f"{cost}_after")
    reduction = row.figures.get(f"{cost}_reduction")
    columns: tuple[str, ...] = (f"{cost}_before",)
    base, how = before, "baseline of"
    if not before and after and reduction and reduction.value < 100:
        columns = (f"{cost}_after", f"{cost}_reduction")
        base = Figure(after.value / (1 - reduction.value / 100), after.step)
        how = f"{_count(after)} as {-reduction.value:+g} % implies a baseline of"
    if not base or not nets:
        return
    ours = ", ".join(f"{count:,}" for count in dict.fromkeys(net.counts(cost)[0] for net in nets))
    if not any(_fits(net, cost, base) for net in nets):
        yield Finding(row, columns, f"{how} {_count(base)} {COSTS[cost]}; {row.model} has {ours}")
    elif before and any(_one_digit_off(net, cost, before) for net in nets):
        text = f"{how} {_count(base)} {COSTS[cost]} differs in one digit from {row.model}'s {ours}"
        yield Finding(row, columns, text)


def _fits(net: Net, cost: str, base: Figure) -> bool:
    """Returns whether `base` may be this network: exact in some convention, or close in ours."""
    counts = net.counts(cost)
    return net.agrees(cost, base) or abs(base.value / counts[0] - 1) <= NEAR


def _one_digit_off(net: Net, cost: str, printed: Figure) -> bool:
    """Returns whether a number of four or more digits differs in one, but not the last: a typo."""
    theirs = str(round(printed.value / printed.step))
    for count in () if net.agrees(cost, printed) else net.counts(cost):
        ours = str(round(count / printed.step))
        differ = [i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b]
        if len(theirs) == len(ours) >= 4 and len(differ) == 1 and differ[0] < len(theirs) - 1:
            return True
    return False


def _differing_baselines(rows: Sequence[Published]) -> Iterator[Finding]:
    """Yields findings where one source prints different counts for the same baseline."""
    for column in ("params_before", "macs_before"):
        groups = defaultdict(list)
        for row in rows:
            if column in row.figures:
                groups[row.source, row.model, row.dataset, row.paper].append(row)
        for group in groups.values():
            values = [row.figures[column] for row in group]
            if any(not _overlap((a.low, a.high), (b.low, b.high)) for a in values for b in values):
                counts = ", ".join(sorted({_count(value) for value in values}))
                for row in group:
                    yield Finding(row, (column,), f"one source gives this network {counts}")


def _copied_baselines(rows: Sequence[Published]) -> Iterator[Finding]:
    """Yields findings where a baseline's top-1 and top-5 are those of another network."""
    columns = ("baseline_top1", "baseline_top5")
    pairs: dict[tuple[str, ...], list[str]] = defaultdict(list)
    printed = [row for row in rows if all(column in row.figures for column in columns)]

    def pair(row: Published) -> tuple[str, ...]:
        return row.dataset, *(f"{row.figures[column].value:.2f}" for column in columns)

    for row in printed:
        pairs[pair(row)].append(row.model)
    for row in printed:
        models = pairs[pair(row)]
        owner = max(models, key=models.count)
        if models.count(row.model) < models.count(owner):
            yield Finding(row, columns, f"baseline of {'/'.join(pair(row)[1:])} % is {owner}'s")


def _overlap(one: Range, other: Range) -> bool:
    """Returns whether two ranges overlap."""
    return one[0] <= other[1] + ROUNDING and other[0] <= one[1] + ROUNDING


def _count(figure: Figure) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if figure.value >= size:
            return f"{figure.value / size:.5g} {unit}"
    return f"{figure.value:g}"
