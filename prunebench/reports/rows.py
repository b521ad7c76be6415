"""Rows of a table: runs that differ in nothing but the seed, made one; published figures beside."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prunebench.records import STAGES, Failure, Latency, Measurement, Report
from prunebench.records.identity import names, setting, settings


@dataclass(frozen=True)
class Spread:
    """Mean over runs, and the sample standard deviation (n - 1); None for a single run."""

    mean: float
    std: float | None = None


@dataclass(frozen=True)
class Change:
    """A cost before and after; `reduction` is in percent of the run's own baseline."""

    before: Spread | None
    after: Spread | None
    reduction: Spread | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table; what is not known is None or absent.

    Attributes:
        model, dataset, method: what was run.
        details: settings in which it differs from rows of the same name ("" if none).
        seeds: number of seeds behind the figures; 0 for published rows.
        failed: runs of these settings that failed.
        top1: stage (or ``published``) -> percent.
        drop: baseline minus last fine-tuned (or published) top-1, in points, run by run.
        params, macs, size: costs; the size in bytes.
        latency: batch -> milliseconds.
        hardware: what the latency was measured on.
        restlessness: widest interquartile range among the latencies, over its median.
        counted: what the criterion counted (probability's cases, say) -> channels, over all groups
            and steps.
        convention: what a MAC is in this row.
        note: on its data or origin.
        source: of a published row; "" for runs.
    """

    model: str
    dataset: str
    method: str
    details: str = ""
    seeds: int = 0
    failed: int = 0
    top1: Mapping[str, Spread] = field(default_factory=dict)
    drop: Spread | None = None
    params: Change | None = None
    macs: Change | None = None
    size: Change | None = None
    latency: Mapping[int, Change] = field(default_factory=dict)
    restlessness: float = 0.0
    hardware: str = ""
    counted: Mapping[str, Spread] = field(default_factory=dict)
    convention: str = ""
    note: str = ""
    source: str = ""


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


def rows_of(
    reports: Sequence[tuple[Path, Report]], failures: Sequence[tuple[Path, Failure]]
) -> list[Row]:
    """Returns one row per setting, in order of model, dataset and method.

    Of several runs with the same setting and seed the one finished last counts: a repetition is
    not another sample.
    """
    done: dict[str, dict[tuple[int, int | None], Report]] = defaultdict(dict)
    failed: dict[str, list[Failure]] = defaultdict(list)
    for _, report in sorted(reports, key=lambda item: item[1].finished_at):
        found_by = report.origin.seed if report.origin else None
        done[setting(report)][report.seed, found_by] = report
    for _, failure in failures:
        failed[setting(failure)].append(failure)
    rows = []
    records: list[Report | Failure] = []
    for key in [*done, *(key for key in failed if key not in done)]:
        runs = sorted(done[key].values(), key=lambda run: run.seed) if key in done else []
        for structure, alike in _by_structure(runs):
            records.append((alike or failed[key])[0])
            rows.append(replace(_row(records[-1], alike, len(failed[key])), details=structure))
    return sorted(_with_details(rows, records), key=_order)


def _by_structure(runs: list[Report]) -> list[tuple[str, list[Report]]]:
    """Splits runs of one setting that train structures which other runs found.

    Those that each train what their own seed found are one row (as are all where nobody found
    anything); those that train what one other seed found are another.
    """
    own = [run for run in runs if run.origin is None or run.origin.seed == run.seed]
    given = {run.origin.seed for run in runs if run.origin and run.origin.seed != run.seed}
    split = [
        (f"structure of seed {seed}", [r for r in runs if r.origin and r.origin.seed == seed])
        for seed in sorted(given)
    ]
    if not split or len(own) > 1 or any(run.seed not in given for run in own):
        split.insert(0, ("", own))
    return split


def _order(row: Row) -> tuple[str, str, str, str]:
    return row.model, row.dataset, row.method, row.details


def _with_details(rows: list[Row], records: Sequence[Report | Failure]) -> list[Row]:
    """Names, in rows that would look alike, the settings in which they differ."""
    alike: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        alike[row.model, row.dataset, row.method].append(i)
    for places in alike.values():
        flat = [settings(records[i]) for i in places]
        keys = sorted({key for values in flat for key in values})
        absent = object()
        telling = [
            key for key in keys if any(f.get(key, absent) != flat[0].get(key, absent) for f in flat)
        ]
        for i, values in zip(places, flat, strict=True):
            named = [f"{key}={_value(values[key])}" for key in telling if key in values]
            rows[i] = replace(rows[i], details=", ".join(filter(None, [*named, rows[i].details])))
    return rows


def _value(value: Any) -> str:
    """Returns `value` as YAML spells it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _row(sample: Report | Failure, runs: Sequence[Report], failed: int) -> Row:
    model, dataset, method = names(sample)
    ends = [(run.at("baseline"), _final(run)) for run in runs]
    pairs = [(before, after) for before, after in ends if before and after]

    def cost(read: Callable[[Measurement], int]) -> Change | None:
        return change([(read(before), read(after)) for before, after in pairs])

    hardware = sorted({_hardware(one) for _, after in pairs for one in after.latency})
    timings = [one for pair in pairs for measured in pair for one in measured.latency]
    return Row(
        model=model,
        dataset=dataset,
        method=method,
        seeds=len(runs),
        failed=failed,
        top1=_accuracies(runs),
        drop=spread(_drops(runs)),
        params=cost(lambda m: m.params),
        macs=cost(lambda m: m.macs),
        size=cost(lambda m: m.size_bytes),
        # Times from different machines have no mean.
        latency=_latencies(pairs) if len(hardware) == 1 else {},
        hardware="; ".join(hardware),
        counted=_counted(runs),
        restlessness=max((one.iqr_ms / one.median_ms for one in timings), default=0.0),
        convention="; ".join(dict.fromkeys(run.convention for run in runs)),
        note="; ".join(dict.fromkeys(run.note for run in runs if run.note)),
    )


def _final(run: Report) -> Measurement | None:
    """Returns the last network of the run that is smaller; all of them have the same sizes."""
    for stage in ("finetuned_last", "repaired", "pruned"):
        if found := run.at(stage):
            return found
    return None


def _accuracies(runs: Sequence[Report]) -> dict[str, Spread]:
    found = {}
    for stage in STAGES:
        values = [m.test.top1 for run in runs if (m := run.at(stage)) and m.test]
        # A mean over some of the seeds would not be comparable with its neighbours.
        if values and len(values) == len(runs) and (mean := spread(values)):
            found[stage] = mean
    return found


def _counted(runs: Sequence[Report]) -> dict[str, Spread]:
    totals: list[Counter[str]] = []
    for run in runs:
        totals.append(Counter())
        for step in run.steps:
            for counts in step.counts.values():
                totals[-1].update(counts)
    keys = dict.fromkeys(key for total in totals for key in total)
    found = {key: spread(total[key] for total in totals) for key in keys}
    return {key: value for key, value in found.items() if value and value.mean}


def _drops(runs: Sequence[Report]) -> list[float]:
    drops = []
    for run in runs:
        before, after = run.at("baseline"), run.at("finetuned_last")
        if before and after and before.test and after.test:
            drops.append(before.test.top1 - after.test.top1)
    return drops if len(drops) == len(runs) else []


def _latencies(pairs: Sequence[tuple[Measurement, Measurement]]) -> dict[int, Change]:
    times: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for before, after in pairs:
        dense = {(one.batch, _hardware(one)): one.median_ms for one in before.latency}
        for one in after.latency:
            if (one.batch, _hardware(one)) in dense:
                times[one.batch].append((dense[one.batch, _hardware(one)], one.median_ms))
    found = {batch: change(values) for batch, values in sorted(times.items())}
    return {batch: value for batch, value in found.items() if value}


def _hardware(latency: Latency) -> str:
    return f"{latency.device}, {latency.threads} thread{'s' if latency.threads != 1 else ''}"
