"""Whether a run and its repetition came out equal, and where they first differ."""

from __future__ import annotations

from typing import Any

from prunebench.records import Report
from prunebench.records.identity import dotted
from prunebench.records.jsonfile import plain

#: figures that say something about the machine, or the format of a network's files
OF_THE_MACHINE = (".latency", ".size_bytes", ".milliseconds")


def first_difference(before: Report, after: Report) -> str:
    """Says where `after` first differs from `before`, in the order of a run; "" if nowhere."""
    then, now = figures(before), figures(after)
    for place in {**then, **now}:
        if then.get(place) != now.get(place):
            return f"{place}: {_told(then.get(place), now.get(place))}"
    return ""


def figures(report: Report) -> dict[str, Any]:
    """Returns what a repetition must come to, by place: accuracies, losses, counts, the plan."""
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
    """Says which versions and hardware are not those of the report; "" if all are."""
    then = before.environment
    return "; ".join(
        f"{key} {then.get(key)} in the report, {now[key]} here"
        for key in now
        if then.get(key) != now[key]
    )


def _told(then: Any, now: Any) -> str:
    """Returns two values side by side; of channels that stay, how many."""
    if isinstance(then, list) and isinstance(now, list):
        same = len({*then} & {*now})
        return f"{len(then)} kept in the report, {len(now)} here, {same} of them the same"
    return f"{then} in the report, {now} here"
