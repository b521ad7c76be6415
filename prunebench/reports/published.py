"""Turns rows of the published record into rows of a table, to stand beside one's own runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from prunebench.published.nets import nets_of, tier
from prunebench.published.record import Published, load
from prunebench.records import TOP1
from prunebench.reports.figures import Change, Spread
from prunebench.reports.rows import Row

#: largest relative difference in parameters of baselines that count as the same network
SAME_SIZE = 0.05

#: data set -> metric of its published accuracies, if not top-1
METRICS = {"casia_webface": "LFW"}


def beside(rows: Sequence[Row]) -> list[Row]:
    """Returns the published rows that may stand beside `rows`: same network and data set.

    The run's baseline must be as large as theirs, or as our own network of that name: full-width
    results do not stand beside a narrow network.
    """
    return [row for _, row in beside_with_tiers(rows)]


def beside_with_tiers(rows: Sequence[Row]) -> list[tuple[str, Row]]:
    """Returns the rows of `beside`, each with its tier."""
    shown = []
    for model, dataset in dict.fromkeys((row.model, row.dataset) for row in rows):
        own = [row for row in rows if (row.model, row.dataset) == (model, dataset)]
        sizes = [row.params.before.mean for row in own if row.params and row.params.before]
        shown += [
            (tier(one), as_row(one, model, dataset))
            for one in of(own[0])
            if one.beside and any(_as_large(one, size) for size in sizes)
        ]
    return shown


def elsewhere(rows: Sequence[Row], shown: Sequence[Row]) -> list[str]:
    """Returns a line for each network and data set with published rows that are not shown."""
    lines = []
    for row in {(row.model, row.dataset): row for row in rows}.values():
        visible = sum((one.model, one.dataset) == (row.model, row.dataset) for one in shown)
        if more := len(of(row)) - visible:
            model, dataset = _names(row)
            lines.append(
                f"{more} published row{'s' if more > 1 else ''} of {model} on {dataset} not shown: "
                f"prunebench published model={model} dataset={dataset}"
            )
    return lines


def of(row: Row) -> list[Published]:
    """Returns all published rows with the network and data set of `row`."""
    return [one for one in load() if (one.model, one.dataset) == _names(row)]


def as_row(one: Published, model: str, dataset: str) -> Row:
    """Returns a published row as a table row: the figures it states, or that follow from them."""
    top1 = {"published": one.value("top1"), "baseline": one.value("baseline_top1")}
    drop = one.drop
    notes = ["quoted there"] if tier(one) == "quoted" else []
    notes += [f"in doubt: {', '.join(one.doubt)}"] if one.doubt else []
    return Row(
        model=model,
        dataset=dataset,
        method=one.method,
        top1={stage: Spread(value) for stage, value in top1.items() if value is not None},
        drop=None if drop is None else Spread(drop),
        params=change(one, "params"),
        macs=change(one, "macs"),
        convention=one.convention,
        note="; ".join(notes),
        source=one.source,
        metric=METRICS.get(dataset.partition(" (")[0], TOP1),
    )


def change(one: Published, cost: str) -> Change | None:
    """Returns ``params`` or ``macs`` before and after, as far as known; None if nothing is."""
    values = (one.value(f"{cost}_before"), one.value(f"{cost}_after"), one.reduction(cost))
    parts = [None if value is None else Spread(value) for value in values]
    return Change(*parts) if any(parts) else None


def _names(row: Row) -> tuple[str, str]:
    """Returns the names that the published record has for the row's network and data set."""
    model = row.model
    if model == "torchvision" and row.runs:
        model = str(row.runs[0][1].config["model"]["name"])
    dataset = row.dataset.partition(" (")[0]
    file = PurePath(row.dataset.partition(" (")[2].rstrip(")")).stem
    known = model.removeprefix("imagenet_").removesuffix("_caffe").removesuffix("_bn")
    return known, file if dataset == "npz" else dataset


def _as_large(one: Published, size: float) -> bool:
    """Returns whether `size` parameters fit the row's baseline, or our network of that name."""
    printed = one.value("params_before")
    sizes = [net.params for net in nets_of(one)] + ([printed] if printed else [])
    return any(abs(size / known - 1) <= SAME_SIZE for known in sizes)
