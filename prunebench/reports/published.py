"""Rows of the published record as rows of a table, beside runs of the same network and data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from prunebench.published.nets import nets_of, tier
from prunebench.published.record import Published, load
from prunebench.records import TOP1
from prunebench.reports.figures import Change, Spread
from prunebench.reports.rows import Row

#: how far the sizes of two baselines may lie apart
SAME_SIZE = 0.05

#: data set -> what its published accuracies are, where not top-1
METRICS = {"casia_webface": "LFW"}


def beside(rows: Sequence[Row]) -> list[Row]:
    """Returns the published rows that stand beside `rows`, runs of the same network and data.

    The run's baseline must be as large as theirs, or as our own network: full-width results do not
    stand beside a narrow one.
    """
    return [row for _, row in beside_with_tiers(rows)]


def beside_with_tiers(rows: Sequence[Row]) -> list[tuple[str, Row]]:
    """Returns the rows of `beside`, each with the tier it is of."""
    shown = []
    for model, dataset in dict.fromkeys((row.model, row.dataset) for row in rows):
        here = [row for row in rows if (row.model, row.dataset) == (model, dataset)]
        sizes = [row.params.before.mean for row in here if row.params and row.params.before]
        shown += [
            (tier(one), as_row(one, model, dataset))
            for one in of(here[0])
            if one.beside and any(_as_large(one, size) for size in sizes)
        ]
    return shown


def elsewhere(rows: Sequence[Row], shown: Sequence[Row]) -> list[str]:
    """Returns a line for each network and data set of which the record has further rows."""
    lines = []
    for row in {(row.model, row.dataset): row for row in rows}.values():
        here = sum((one.model, one.dataset) == (row.model, row.dataset) for one in shown)
        if more := len(of(row)) - here:
            model, dataset = _names(row)
            lines.append(
                f"{more} published row{'s' if more > 1 else ''} of {model} on {dataset} not shown: "
                f"prunebench published model={model} dataset={dataset}"
            )
    return lines


def of(row: Row) -> list[Published]:
    """Returns all published rows of the network and data that were run."""
    return [one for one in load() if (one.model, one.dataset) == _names(row)]


def as_row(one: Published, model: str, dataset: str) -> Row:
    """Returns the figures as a row: what the source gives, or what follows from it."""
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
    """Returns what is known of ``params`` or ``macs`` before and after."""
    values = (one.value(f"{cost}_before"), one.value(f"{cost}_after"), one.reduction(cost))
    parts = [None if value is None else Spread(value) for value in values]
    return Change(*parts) if any(parts) else None


def _names(row: Row) -> tuple[str, str]:
    """Returns what the record calls the network and the data of a run."""
    model = row.model
    if model == "torchvision" and row.runs:
        model = str(row.runs[0][1].config["model"]["name"])
    dataset = row.dataset.partition(" (")[0]
    file = PurePath(row.dataset.partition(" (")[2].rstrip(")")).stem
    known = model.removeprefix("imagenet_").removesuffix("_caffe").removesuffix("_bn")
    return known, file if dataset == "npz" else dataset


def _as_large(one: Published, size: float) -> bool:
    """Whether a baseline of `size` parameters may be the row's, or ours of the same name."""
    printed = one.value("params_before")
    sizes = [net.params for net in nets_of(one)] + ([printed] if printed else [])
    return any(abs(size / known - 1) <= SAME_SIZE for known in sizes)
