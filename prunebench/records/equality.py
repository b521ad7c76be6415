"""Compares a run with its repetition, and finds where they first differ."""

from __future__ import annotations

from typing import Any

from prunebench.records import Report
from prunebench.records.identity import dotted
from prunebench.records.jsonfile import plain

#: endings of figures that depend on the machine or on the file format, not on the result
OF_THE_MACHINE = (".latency", ".size_bytes", ".milliseconds")


def first_difference(before: Report, after: Report) -> str:
    """Returns where `after` first differs from `before`, in the order of a run; "" if nowhere."""
    then, now = figures(before), figures(after)
    for place in {**then, **now}:
        if then.get(place) != now.get(place):
            return f"{place}: {_side_by_side(then.get(place), now.get(place))}"
    return ""


def figures(report: Report) -> dict[str, Any]:
    """Returns place -> value of all that a repetition must reproduce: accuracies, counts, plan."""
    stages = {measured.stage: measured for measured in report.measurements}
    steps = {
        step.name: {"kept": step.kept, "counts": step.counts, "not prunable": step.unprunable}
        for step in report.steps
    }
    parts = {
        "baseline": stages.pop("baseline", None),
        "steps": steps,
        "plan": report.plan,
        "layers": {row.name: row for row in report.layers},
        **stages,
    }
    return {
        place: value for place, value in dotted(plain(parts)) if not place.endswith(OF_THE_MACHINE)
    }


def other_surroundings(before: Report, now: dict[str, Any]) -> str:
    """Returns which versions and hardware differ from the report's; "" if none do."""
    then = before.environment
    return "; ".join(
        f"{key} {then.get(key)} in the report, {now[key]} here"
        for key in now
        if then.get(key) != now[key]
    )


def _side_by_side(then: Any, now: Any) -> str:
    """Returns the two values side by side; for lists of kept channels, how many they share."""
    if isinstance(then, list) and isinstance(now, list):
        same = len({*then} & {*now})
        return f"{len(then)} kept in the report, {len(now)} here, {same} of them the same"
    return f"{then} in the report, {now} here"
