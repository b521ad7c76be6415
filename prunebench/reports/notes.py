"""Writes the notes below a table, and the names of its rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from prunebench.records import TOP1, Failure
from prunebench.records.measurement import BUSY
from prunebench.records.unfinished import Unfinished
from prunebench.records.widths import advice
from prunebench.reports.cells import channels
from prunebench.reports.load import Runs
from prunebench.reports.rows import Row
from prunebench.reports.speed import cut_widths, shortfalls

#: metric -> its description
_METRICS = {
    TOP1: "Top-1 on the test split",
    "LFW": "LFW: mean accuracy over the folds of pairs",
}
#: suffix to the name of a control, and the note that explains it
CONTROL = " (control)"
CONTROLS = (
    "(control): what a method has to beat: random channels, uniform width or the found structure "
    "from scratch, or the dense network trained as long."
)


def named(row: Row) -> str:
    """Returns a row's method, with the settings that set it apart."""
    return f"{row.method} [{row.details}]" if row.details else row.method


def label(row: Row, marks: Mapping[str, str]) -> str:
    """Returns a row's name: method, whether it is a control, and the mark of its source."""
    name = named(row) + (CONTROL if row.control else "")
    return f"{name} {marks[_origin(row)]}" if _origin(row) in marks else name


def called(row: Row, rows: Sequence[Row]) -> str:
    """Returns a row's name in notes on `rows`, with model and data set where these differ."""
    parts = []
    if len({other.model for other in rows}) > 1:
        parts.append(row.model)
    if len({other.dataset for other in rows}) > 1:
        parts.append(row.dataset)
    return ", ".join([*parts, label(row, {})])


def marks_of(rows: Sequence[Row]) -> dict[str, str]:
    """Returns source -> mark, ``[1]``, ``[2]`` and so on, for the published rows."""
    origins = _unique(_origin(row) for row in rows if row.source)
    return {origin: f"[{number}]" for number, origin in enumerate(origins, start=1)}


def notes_of(rows: Sequence[Row]) -> list[str]:
    """Returns the notes that the figures need: metrics, conventions, data, repetitions, sources."""
    runs = [row for row in rows if not row.source]
    notes = []
    if any(row.seeds for row in runs):
        what = _unique(_METRICS.get(row.metric, row.metric) for row in runs if row.seeds)
        drop = "drop = baseline minus fine-tuned (last), in points."
        notes.append(f"{' or '.join(what)}; {drop}")
    if any(row.seeds > 1 for row in runs):
        notes.append("a ± b: mean and sample standard deviation over the seeds.")
    if any(row.control for row in runs):
        notes.append(CONTROLS)
    notes += [f"Counts: {text}" for text in _unique(row.convention for row in runs)]
    notes += [
        f"Data, {name}: {text}"
        for name, text in dict.fromkeys((row.dataset, row.note) for row in runs if row.note)
    ]
    notes += [
        f"Channels by case, {called(row, runs)}: "
        + ", ".join(f"{key} {channels(value)}" for key, value in row.counted.items())
        for row in runs
        if row.counted
    ]
    notes += _verified(runs)
    notes += _timed(runs)
    notes += [
        f"Incomplete curves of {called(row, runs)}, seed {report.seed}: {report.untracked}"
        for row in runs
        for _, report in row.runs
        if report.untracked
    ]
    notes += [
        f"Run more than once, the last one counts: {called(row, runs)}, seed {seed} ({times} runs)"
        for row in runs
        for seed, times in row.repeated.items()
    ]
    notes += _latencies_left_out(runs)
    return notes + [f"{mark} {text}" for text, mark in marks_of(rows).items()]


def _verified(runs: Sequence[Row]) -> list[str]:
    """Returns a note on each row of a single run that was tested on pairs of faces."""
    lines = []
    for row in runs:
        measured = row.runs[0][1].measurements if len(row.runs) == 1 else []
        if not measured or measured[-1].verification is None:
            continue
        sets = [
            f"{name} {found.accuracy:.2f} ± {found.std:.2f} % over {len(found.pairs)} folds "
            f"({found.protocol}), {100 * fmean(found.accepted):.2f} % accepted at FAR {found.far:g}"
            for name, found in measured[-1].verification.items()
        ]
        lines.append(f"Faces, {called(row, runs)}: {'; '.join(sets)}")
    return lines


def _timed(runs: Sequence[Row]) -> list[str]:
    """Returns a note on each budget in milliseconds, for the last run of each row."""
    targets = [(row, row.runs[-1][1].latency_target) for row in runs if row.runs]
    return [
        f"Budget, {_last(row, runs)}: {'; '.join(filter(None, (str(target), target.advice)))}"
        for row, target in targets
        if target is not None
    ]


def _last(row: Row, rows: Sequence[Row]) -> str:
    """Returns what the last run of a row is called: with its seed where there are others."""
    name = called(row, rows)
    return f"{name}, seed {row.runs[-1][1].seed}" if row.seeds > 1 else name


def latency_notes(rows: Sequence[Row]) -> list[str]:
    """Returns a note on each machine that latencies were measured on, with their spread."""
    spoilt = busy(rows)
    shown = [row for row in rows if row.latency and timed_beside(row) not in spoilt]
    return [
        f"Latency: median per forward pass on {hardware}, interquartile range up to "
        f"{max(row.restlessness for row in shown if row.hardware == hardware):.0%} of it"
        for hardware in _unique(row.hardware for row in shown)
    ] + _short_of_count(shown)


def _short_of_count(rows: Sequence[Row]) -> list[str]:
    """Returns at most one note, on rows whose last runs gained less speed than MACs suggest."""
    last = [(_last(row, rows), row.runs[-1][1]) for row in rows if row.runs]
    short = {
        f"{name} ({'; '.join(lines)})": cut_widths(report)
        for name, report in last
        if (lines := list(shortfalls(report))) and cut_widths(report)
    }
    if not short:
        return []
    why = advice(sorted({width for widths in short.values() for width in widths}))
    return [f"Slower than the MACs suggest: {', '.join(short)}: {why}"]


def timed_beside(row: Row) -> tuple[str, str, str]:
    """Returns a key; rows with the same key have latencies that are compared with each other.

    A structure found in a network is compared with that network: ``vgg16, found`` with ``vgg16``.
    """
    return row.model.partition(",")[0], row.dataset, row.hardware


def busy(rows: Sequence[Row]) -> dict[tuple[str, str, str], float]:
    """Returns key of `timed_beside` -> widest spread, for latencies from a busy machine.

    One row with a wide spread spoils all with the same key: nobody knows how long the other work on
    the machine lasted.
    """
    widest: dict[tuple[str, str, str], float] = {}
    for row in rows:
        if row.latency and row.restlessness > widest.get(timed_beside(row), BUSY):
            widest[timed_beside(row)] = row.restlessness
    return widest


def losses_of(runs: Runs) -> list[str]:
    """Returns a note on each run without a result, each damaged file, and rows not shown."""
    lines = [f"failed: {path.parent} ({f.stage}: {_first_line(f)})" for path, f in runs.failures]
    if runs.hidden:
        lines.append(f"Not shown: {runs.hidden} failed; --failed lists them.")
    lines += [f"{_state(run)}: {path.parent} ({_place(run)})" for path, run in runs.unfinished]
    return [*lines, *(f"damaged: {message}" for message in runs.damaged), *runs.elsewhere]


def _latencies_left_out(runs: Sequence[Row]) -> list[str]:
    return [
        f"Latency of {model} on {dataset} is left out: the machine was busy (interquartile range "
        f"up to {widest:.0%} of the median on {hardware}), so there is nothing to compare."
        for (model, dataset, hardware), widest in busy(runs).items()
    ] + [
        f"Latency of {called(row, runs)} is left out, it was measured on different machines: "
        f"{row.hardware}"
        for row in runs
        if row.hardware and not row.latency
    ]


def _state(run: Unfinished) -> str:
    if run.running:
        return "running"
    return "interrupted" if run.interrupted else "unfinished"


def _place(run: Unfinished) -> str:
    """Returns how far a run has come: ``finetune, epoch 3/25, last row 2026-01-01 14:59``."""
    epoch = f"epoch {run.epoch}" if run.epoch else ""
    seen = f"{'begun' if run.stage == 'start' else 'last row'} {run.seen:%Y-%m-%d %H:%M}"
    return ", ".join(filter(None, [run.stage, epoch, seen]))


def _origin(row: Row) -> str:
    parts = [row.source, row.convention, row.note]
    return "; ".join(part for part in parts if part)


def _unique(texts: Iterable[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if text]


def _first_line(failure: Failure) -> str:
    return f"{failure.kind}: {failure.message.strip().partition(chr(10))[0]}"
