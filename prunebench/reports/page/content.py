"""Collects what a page shows as plain values: the rows of its table, and the run behind each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from prunebench.records import LayerRow, Measurement, Report
from prunebench.records.identity import dotted
from prunebench.reports.cells import amount
from prunebench.reports.curves import Course, course_of
from prunebench.reports.figures import Change, Spread
from prunebench.reports.front import accuracy_of
from prunebench.reports.load import Runs
from prunebench.reports.notes import CONTROL, busy, losses_of, notes_of, timed_beside
from prunebench.reports.published import beside_with_tiers
from prunebench.reports.rows import Row, counting, rows_of
from prunebench.reports.speed import slower_than_counted

#: largest number of points in a curve; longer ones are thinned out
POINTS = 150


def content(found: Runs) -> dict[str, Any]:
    """Returns all data of the page that shows `found`."""
    rows = rows_of(found.reports, found.failures, found.unfinished)
    published = beside_with_tiers(rows)
    spoilt = busy(rows)
    runs: list[dict[str, Any]] = []
    lines = []
    for row in rows:
        line = _line(row) | {"latency": _latency(row, timed_beside(row) in spoilt)}
        line["runs"] = []
        for path, report in counting(row.runs).values():
            line["runs"].append(len(runs))
            runs.append(run(path, report))
        lines.append(line)
    lines += [_line(row) | {"tier": strength, "source": row.source} for strength, row in published]
    return {
        "rows": lines,
        "runs": runs,
        "notes": [*notes_of(rows), *losses_of(found)],
        "metric": next(iter(dict.fromkeys(row.metric for row in rows)), ""),
    }


def _line(row: Row) -> dict[str, Any]:
    """Returns a row of the page's table; `tier` is empty for runs."""
    return {
        "model": row.model,
        "dataset": row.dataset,
        "method": row.method + (CONTROL if row.control else ""),
        "details": row.details,
        "tier": "",
        "seeds": row.seeds,
        "lost": row.failed + row.unfinished,
        "metric": row.metric,
        "baseline": _mean(row.top1.get("baseline")),
        "pruned": _mean(row.top1.get("repaired", row.top1.get("pruned"))),
        "accuracy": _mean(accuracy_of(row)),
        "std": getattr(accuracy_of(row), "std", None),
        "drop": _mean(row.drop),
        "macs": _ends(row.macs),
        "params": _ends(row.params),
        "note": row.note,
    }


def _latency(row: Row, spoilt: bool) -> dict[str, Any]:
    """Returns batch size -> milliseconds before and after, and whether the machine was too busy."""
    return {str(batch): _ends(value) | {"busy": spoilt} for batch, value in row.latency.items()}


def run(path: Path, report: Report) -> dict[str, Any]:
    """Returns what the page shows of a run when it is opened."""
    course = course_of(path)
    return {
        "path": str(path),
        "seed": report.seed,
        "finished": report.finished_at,
        "config": {key: _plain(value) for key, value in dotted(report.config)},
        "choices": dict(report.choices),
        "environment": {key: _plain(value) for key, value in report.environment.items()},
        "seconds": {stage: round(value, 1) for stage, value in report.seconds.items()},
        "measured": [_measured(one) for one in report.measurements],
        # name; channels, parameters and MACs, each before and after; why it is whole
        "layers": [[*astuple(one), why_whole(report, one)] for one in report.layers],
        "speed": slower_than_counted(report),
        "surgery": max((step.surgery_error for step in report.steps), default=None),
        "curves": _thinned(course) if course else None,
    }


def _measured(one: Measurement) -> dict[str, Any]:
    return {
        "stage": one.stage,
        "accuracy": one.test.accuracy if one.test else None,
        "seen": one.test.seen if one.test else None,
        "params": amount(Spread(one.params)),
        "macs": amount(Spread(one.macs)),
        "bytes": amount(Spread(one.size_bytes), "B"),
        "latency": [f"batch {time.batch}: {time.median_ms:.4g} ms" for time in one.latency],
    }


def why_whole(report: Report, layer: LayerRow) -> str:
    """Returns why a layer kept all its channels; "" if it was cut."""
    if layer.channels_after < layer.channels_before:
        return ""
    for step in report.steps:
        if layer.name in step.unprunable:
            return step.unprunable[layer.name]
    if layer.name in (report.unscored or {}):
        return f"no score: {(report.unscored or {})[layer.name]}"
    if any(layer.name in step.groups for step in report.steps):
        return "criterion and budget keep all its channels"
    scope = report.config.get("budget", {}).get("scope")
    more = ": budget.scope=inner leaves residual streams alone" if scope == "inner" else ""
    return f"not among the groups that this run prunes{more}"


def _thinned(course: Course) -> dict[str, Any]:
    """Returns a course with at most `POINTS` points per curve, the last one included."""
    curves = {}
    for kind, points in course.curves.items():
        step = -(-len(points) // POINTS)
        chosen = points[::-step][::-1]
        curves[kind] = [[x, round(y, 2)] for x, y in chosen]
    return {"curves": curves, "cuts": [list(cut) for cut in course.cuts]}


def _mean(value: Spread | None) -> float | None:
    return None if value is None else round(float(value.mean), 4)


def _ends(value: Change | None) -> dict[str, float | None]:
    """Returns a cost before and after, and its reduction in percent."""
    known = value or Change(None, None, None)
    return {
        "before": _mean(known.before),
        "after": _mean(known.after),
        "reduction": _mean(known.reduction),
    }


def _plain(value: Any) -> Any:
    """Returns `value` if JSON can hold it, otherwise as text."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def titles(lines: Sequence[dict[str, Any]]) -> str:
    """Returns the page's title: its networks and data sets."""
    places = dict.fromkeys(f"{line['model']} on {line['dataset']}" for line in lines)
    few = list(places)[:3]
    return ", ".join(few) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
