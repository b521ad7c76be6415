"""Merges runs that differ only in the seed into the rows of a table."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prunebench.records import SEARCH, STAGES, TOP1, Failure, Latency, Measurement, Report
from prunebench.records.identity import Record, control, names, setting, settings
from prunebench.records.unfinished import Unfinished
from prunebench.reports.figures import Change, Spread, change, spread


@dataclass(frozen=True, kw_only=True)
class Row:
    """Holds one line of a table; what is not known is None or absent.

    Attributes:
        model, dataset, method: names of what was run.
        details: settings in which it differs from rows of the same name ("" if none).
        seeds: number of seeds behind the figures; 0 for published rows.
        failed: runs of these settings that failed.
        unfinished: runs of these settings that are going on, or were killed.
        runs: the files behind the figures with their reports, ordered by seed and time.
        metric: of the accuracies; top-1 unless the runs say otherwise.
        top1: stage (or ``published``) -> accuracy in percent, of `metric`.
        drop: baseline minus last fine-tuned (or published) accuracy, in points, run by run.
        params, macs, size: costs; the size in bytes.
        latency: batch size -> milliseconds.
        hardware: on which the latency was measured.
        restlessness: widest interquartile range among the latencies, over its median.
        counted: what the criterion counted (probability's cases, say) -> channels, over all groups
            and steps.
        convention: how MACs are counted in this row.
        note: on its data or origin.
        source: of a published row; "" for runs.
        control: which control the runs are; "" for a method.
        settings: group -> option, and dotted key of the configuration -> value, as YAML spells it.
    """

    model: str
    dataset: str
    method: str
    details: str = ""
    seeds: int = 0
    failed: int = 0
    unfinished: int = 0
    runs: Sequence[tuple[Path, Report]] = ()
    metric: str = TOP1
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
    control: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def repeated(self) -> dict[int, int]:
        """Seed -> number of runs, for seeds that were run more than once."""
        times = Counter(report.seed for _, report in self.runs)
        return {seed: count for seed, count in times.items() if count > 1}


def rows_of(
    reports: Sequence[tuple[Path, Report]],
    failures: Sequence[tuple[Path, Failure]],
    unfinished: Sequence[tuple[Path, Unfinished]] = (),
) -> list[Row]:
    """Returns one row per setting, ordered by model, dataset and method.

    Of several runs with the same setting and seed the last finished counts: a repetition is not
    another sample.
    """
    done: dict[str, list[tuple[Path, Report]]] = defaultdict(list)
    lost: dict[str, list[Failure | Unfinished]] = defaultdict(list)
    for item in sorted(reports, key=lambda item: (item[1].seed, item[1].finished_at)):
        done[setting(item[1])].append(item)
    for _, failure in failures:
        lost[setting(failure)].append(failure)
    for _, run in unfinished:
        lost[setting(run)].append(run)
    rows = []
    records: list[Record] = []
    for key in {**done, **lost}:
        without = lost.get(key, [])
        failed = sum(isinstance(record, Failure) for record in without)
        for structure, alike in _by_structure(done.get(key, [])):
            records.append(alike[0][1] if alike else without[0])
            row = _row(records[-1], alike)
            open_ends = len(without) - failed
            rows.append(replace(row, details=structure, failed=failed, unfinished=open_ends))
    return sorted(_with_details(rows, records), key=_order)


def row_of(path: Path, report: Report) -> Row:
    """Returns the row of a single run."""
    return _row(report, [(path, report)])


def counting(runs: Sequence[tuple[Path, Report]]) -> dict[int, tuple[Path, Report]]:
    """Returns seed -> the run that counts: the last one, given `runs` in order of time."""
    return {report.seed: (path, report) for path, report in runs}


def _by_structure(runs: list[tuple[Path, Report]]) -> list[tuple[str, list[tuple[Path, Report]]]]:
    """Splits runs of one setting that train structures which other runs have found.

    Runs that each train the structure of their own seed share a row, as do runs that train no found
    structure. Runs that all train the structure of one other seed form a row of their own.
    """
    found_by = {path: run.origin.seed if run.origin else run.seed for path, run in runs}
    own = [(path, run) for path, run in runs if found_by[path] == run.seed]
    given = {found_by[path] for path, run in runs if found_by[path] != run.seed}
    split = [
        (f"structure of seed {seed}", [(path, run) for path, run in runs if found_by[path] == seed])
        for seed in sorted(given)
    ]
    seeds = {run.seed for _, run in own}
    if not split or len(seeds) > 1 or seeds - given:
        split.insert(0, ("", own))
    return split


def _order(row: Row) -> tuple[str, str, str, str]:
    return row.model, row.dataset, row.method, row.details


def _with_details(rows: list[Row], records: Sequence[Record]) -> list[Row]:
    """Fills in the `details` of rows that would otherwise look alike."""
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


def _row(sample: Record, files: Sequence[tuple[Path, Report]]) -> Row:
    model, dataset, method = names(sample)
    runs = [report for _, report in counting(files).values()]
    ends = [(run.at("baseline"), _final(run)) for run in runs]
    pairs = [(before, after) for before, after in ends if before and after]

    def cost(read: Callable[[Measurement], int]) -> Change | None:
        return change([(read(before), read(after)) for before, after in pairs])

    hardware = sorted({_hardware(one) for _, after in pairs for one in after.latency})
    timings = [one for pair in pairs for measured in pair for one in measured.latency]
    return Row(
        model=model,
        dataset=_with_file(dataset, sample.config),
        method=method,
        seeds=len(runs),
        runs=files,
        metric=_metric(runs),
        top1=_accuracies(runs),
        drop=spread(_drops(runs)),
        params=cost(lambda m: m.params),
        macs=cost(lambda m: m.macs),
        size=cost(lambda m: m.size_bytes),
        # Times from different machines must not be averaged.
        latency=_latencies(pairs) if len(hardware) == 1 else {},
        hardware="; ".join(hardware),
        counted=_counted(runs),
        restlessness=max((one.iqr_ms / one.median_ms for one in timings), default=0.0),
        convention="; ".join(dict.fromkeys(run.convention for run in runs)),
        note="; ".join(dict.fromkeys(run.note for run in runs if run.note)),
        control=control(sample),
        settings={k: _value(v) for k, v in {**sample.choices, **settings(sample)}.items()},
    )


def _with_file(dataset: str, config: Mapping[str, Any]) -> str:
    """Returns the dataset's name, followed by that of the user's own file if there is one."""
    path = (config.get("dataset") or {}).get("path")
    return f"{dataset} ({Path(path).name})" if path else dataset


def _final(run: Report) -> Measurement | None:
    """Returns the last measurement of the run's smaller network; all have the same sizes."""
    for stage in ("finetuned_last", "repaired", "pruned"):
        if found := run.at(stage):
            return found
    return None


def _metric(runs: Sequence[Report]) -> str:
    """Returns the metric of the accuracies of runs of one setting."""
    scores = [m.test for run in runs for m in run.measurements if m.test]
    return scores[0].title if scores else TOP1


def _accuracies(runs: Sequence[Report]) -> dict[str, Spread]:
    found = {}
    for stage in STAGES:
        values = [m.test.accuracy for run in runs if (m := run.at(stage)) and m.test]
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
                totals[-1].update({k: n for k, n in counts.items() if k not in SEARCH})
    keys = dict.fromkeys(key for total in totals for key in total)
    found = {key: spread(total[key] for total in totals) for key in keys}
    return {key: value for key, value in found.items() if value and value.mean}


def _drops(runs: Sequence[Report]) -> list[float]:
    drops = []
    for run in runs:
        before, after = run.at("baseline"), run.at("finetuned_last")
        if before and after and before.test and after.test:
            drops.append(before.test.accuracy - after.test.accuracy)
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
