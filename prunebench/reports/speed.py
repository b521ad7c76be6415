"""Where fewer MACs were not as much faster, and the widths that may be why."""

from __future__ import annotations

from prunebench.records import Latency, Report
from prunebench.reports.notes import BUSY

#: share of the counted speed-up below which widths are named
ENOUGH = 0.75
#: machines like widths that are multiples of this
STEP = 8
#: widths that are named
SHOWN = 4


def slower_than_counted(report: Report) -> list[str]:
    """Returns a line for each batch at which much of the counted speed-up was not measured."""
    before, after = report.at("baseline"), report.at("finetuned_last") or report.at("pruned")
    widths = _odd_widths(report)
    if before is None or after is None or not after.macs or not widths:
        return []
    counted = before.macs / after.macs
    lines = []
    for dense in before.latency:
        slim = next((one for one in after.latency if one.batch == dense.batch), None)
        if slim is None or not (_quiet(dense) and _quiet(slim)):
            continue
        measured = dense.median_ms / slim.median_ms
        if measured < ENOUGH * counted:
            lines.append(
                f"{counted:.2f}x fewer MACs, but {measured:.2f}x as fast at batch {dense.batch}: "
                f"widths of {widths} may cost the rest; budget.divisor={STEP} avoids them"
            )
    return lines


def _odd_widths(report: Report) -> str:
    """Names widths of cut layers that are no multiple of `STEP`; "" if there are none."""
    found = sorted(
        {
            layer.channels_after
            for layer in report.layers
            if layer.channels_after < layer.channels_before and layer.channels_after % STEP
        }
    )
    return ", ".join(map(str, found[:SHOWN])) + (", ..." if len(found) > SHOWN else "")


def _quiet(latency: Latency) -> bool:
    return latency.iqr_ms <= BUSY * latency.median_ms
