"""Page and table name the widths that may be why fewer MACs are not faster."""

from dataclasses import replace
from pathlib import Path

from prunebench.records import LayerRow
from prunebench.reports.notes import latency_notes
from prunebench.reports.rows import row_of
from prunebench.reports.speed import slower_than_counted


def layer(before, after):
    return LayerRow(
        name="conv", channels_before=before, channels_after=after, params_before=8,
        params_after=4, macs_before=8, macs_after=4,
    )  # fmt: skip


def timed(run, milliseconds, iqr=0.1):
    """The run with these latencies at batch 64 after pruning; 100 ms before."""
    slim = run.at("finetuned_last")
    times = [replace(one, median_ms=milliseconds, iqr_ms=iqr) for one in slim.latency[1:]]
    rest = [one for one in run.measurements if one is not slim]
    return replace(run, measurements=[*rest, replace(slim, latency=times)])


def test_odd_widths_are_named_where_the_speed_up_stays_away(make_report):
    run = replace(make_report(), layers=[layer(32, 13), layer(32, 16), layer(10, 10)])
    [line] = slower_than_counted(timed(run, 80.0))  # 2.5x fewer MACs
    said = "2.50x fewer MACs, but 1.25x as fast at batch 64"
    why = "widths of 13 may cost you the speed-up: budget.divisor=8"
    assert line == f"{said}: {why}"
    told = latency_notes([row_of(Path("a"), timed(run, 80.0))])
    assert told[1:] == [f"Slower than the MACs suggest: foad, own, recipe quick ({said}): {why}"]
    assert slower_than_counted(timed(run, 50.0)) == []  # 2x: three quarters of it and more
    assert slower_than_counted(timed(run, 80.0, iqr=40.0)) == []  # a busy machine
    even = replace(run, layers=[layer(32, 16), layer(10, 10)])
    assert slower_than_counted(timed(even, 80.0)) == []
    assert len(latency_notes([row_of(Path("a"), timed(even, 80.0))])) == 1  # what it was timed on
