"""Finds networks that gained less speed than their MACs suggest, and widths that may be why."""

from __future__ import annotations

from collections.abc import Iterator

from prunebench.records import Report
from prunebench.records.widths import advice, falls_short, odd_widths


def slower_than_counted(report: Report) -> list[str]:
    """Returns a line, with advice, for each batch size at which speed fell far short of MACs."""
    why = advice(cut_widths(report))
    return [f"{short}: {why}" for short in shortfalls(report)] if why else []


def shortfalls(report: Report) -> Iterator[str]:
    """Yields, for each such batch size, by which factors MACs and time went down."""
    before, after = report.at("baseline"), report.at("finetuned_last") or report.at("pruned")
    if before is None or after is None or not after.macs:
        return
    counted, slims = before.macs / after.macs, {one.batch: one for one in after.latency}
    for dense in before.latency:
        slim = slims.get(dense.batch)
        if slim is None or dense.busy or slim.busy:
            continue
        measured = dense.median_ms / slim.median_ms
        if falls_short(counted, measured):
            yield (f"{counted:.2f}x fewer MACs, but {measured:.2f}x as fast at batch {dense.batch}")


def cut_widths(report: Report) -> list[int]:
    """Returns the widths of cut layers that are no multiples of 8."""
    return odd_widths(
        layer.channels_after
        for layer in report.layers
        if layer.channels_after < layer.channels_before
    )
