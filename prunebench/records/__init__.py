"""Defines what a run leaves behind: records of plain numbers and strings, kept as JSON.

Records hold counts rather than rates, and field names include units. Tables, plots and exports read
nothing else. Begin with `Report`, the record of a finished run; `measurement` is what it holds of
one network. `identity` says which runs are the same, `jsonfile` reads and writes the files.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from prunebench.errors import DataError
from prunebench.records.jsonfile import decode, plain, sync_folder, write_bytes
from prunebench.records.measurement import TOP1 as TOP1
from prunebench.records.measurement import Latency as Latency
from prunebench.records.measurement import LatencyTarget as LatencyTarget
from prunebench.records.measurement import Measurement as Measurement
from prunebench.records.measurement import Score as Score
from prunebench.records.measurement import Verification as Verification
from prunebench.records.measurement import require_share

#: version of the records' layout; raised when a field changes its name or meaning
SCHEMA = 1
REPORT = "report.json"
FAILURE = "failure.json"
#: the `Failure.kind` of a run that a user or a cluster asked to stop
INTERRUPTED = "interrupted"
#: keys of `StepRecord.counts` that are no numbers of channels but the effort of AOFP's search
SEARCH = ("halves", "passed", "least_draws", "milliseconds")
#: control characters, raw or escaped in JSON, with which a file could manipulate a terminal
CONTROL = re.compile(r"(?<!\\)\\u00(?:[01][0-9a-f]|7f|[89][0-9a-f])|[\x7f-\x9f]", re.IGNORECASE)
STAGES = ("baseline", "pruned", "repaired", "finetuned_last", "finetuned_best_val")

Record = TypeVar("Record")


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """Describes one layer before and after pruning; MACs are of one image."""

    name: str
    channels_before: int
    channels_after: int
    params_before: int
    params_after: int
    macs_before: int
    macs_after: int


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """Describes one pruning step.

    Attributes:
        name: of the schedule's step.
        groups: names of the groups ranked in this step.
        share: how far this step went towards the final budget, in [0, 1].
        kept: group name -> number of channels left.
        criterion_seconds: time spent ranking.
        seconds: of the whole step, without its short fine-tuning.
        surgery_error: largest relative difference between the masked and the slimmed network.
        surgery_tolerance, surgery_dtype: the largest error that rounding explains, and the dtype of
            the comparison (reports of version 1.0 had one bound for all).
        unprunable: layer -> why it cannot be pruned.
        counts: group name -> what the criterion counted there: channels (probability's cases, say),
            or the effort of a search (`SEARCH`).
        removed, removed_alive: how many channels this step cut, and how many of them the criterion
            knew to be alive; None if it cannot tell.
        settings_found: settings of the criterion that the budget searched (allocation=decision).
    """

    name: str
    groups: list[str]
    share: float
    kept: dict[str, int]
    criterion_seconds: float
    seconds: float
    surgery_error: float
    unprunable: dict[str, str]
    surgery_tolerance: float | None = None
    surgery_dtype: str | None = None
    counts: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    removed: int | None = None
    removed_alive: int | None = None
    settings_found: dict[str, float] | None = None


@dataclass(frozen=True, kw_only=True)
class SensitivityPoint:
    """Describes the dense network after cutting a single group, without training.

    Attributes:
        group: name of the group.
        share: of its channels that should stay.
        channels, kept: of the group, before and after.
        macs: of the whole network.
        correct, seen: validation images classified correctly, and all.
    """

    group: str
    share: float
    channels: int
    kept: int
    macs: int
    correct: int
    seen: int

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require_share(self.correct, self.seen)

    @property
    def accuracy(self) -> float:
        """Validation accuracy in percent."""
        return 100.0 * self.correct / self.seen


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Identifies the run whose structure another run trains (model=found).

    Attributes:
        model, method: as tables name them.
        setting: digest of all that decided its result except the seed.
        seed: its seed.
    """

    model: str
    method: str
    setting: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """Describes a finished run.

    Attributes:
        config: the resolved config, plain values.
        choices: group -> name of the option chosen (model, dataset, criterion, budget, repair,
            schedule, recipe, method).
        seed: of the run.
        digest: of all that decides the result.
        environment: commit, dirty flag, versions, device.
        seconds: stage -> seconds.
        plan: the final plan, group name -> kept channels.
        layers: per-layer table.
        steps: the pruning steps in order.
        measurements: in the order of the stages.
        convention: how MACs are counted; printed with every figure.
        note: what must be said about the data ("" if nothing).
        finished_at: ISO 8601 time with zone.
        origin: the run that found the network's structure, if one did.
        contents: dotted key of the config -> sha256 of the file it names (for a folder, of its
            files' names, sizes and times), for all files that decide the result and are not checked
            against a published digest; None in older reports.
        attempts: the processes that worked on it, see `records.attempts`; None in older reports.
        baseline: its entry in the baseline store; None if it has none.
        unscored: group that stayed whole because the criterion had no score for it -> why; None in
            older reports.
        latency_target: outcome of a budget in milliseconds; None for other budgets.
        damaged: image that could not be read and was left out -> why; None if there were none.
        untracked: which tracker lacks some of the run's curves, and why; None if none does.
        sensitivity: the points of ``run.sensitivity``; None if it was not asked for.
    """

    config: dict[str, Any]
    choices: dict[str, str]
    seed: int
    digest: str
    environment: dict[str, Any]
    seconds: dict[str, float]
    plan: dict[str, Any]
    layers: list[LayerRow]
    steps: list[StepRecord]
    measurements: list[Measurement]
    convention: str
    note: str
    finished_at: str
    origin: Origin | None = None
    contents: dict[str, str] | None = None
    attempts: list[dict[str, Any]] | None = None
    baseline: str | None = None
    unscored: dict[str, str] | None = None
    damaged: dict[str, str] | None = None
    latency_target: LatencyTarget | None = None
    sensitivity: list[SensitivityPoint] | None = None
    untracked: str | None = None
    schema: int = SCHEMA

    def at(self, stage: str) -> Measurement | None:
        """Returns the measurement of `stage`; None if the run has none."""
        return next((m for m in self.measurements if m.stage == stage), None)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Describes a run that ended early.

    Attributes:
        config, choices, seed, digest, environment, seconds, finished_at, contents: as in `Report`.
        stage: in which it stopped.
        kind: the exception's class name, or `INTERRUPTED`.
        message: the exception's text.
        traceback: in full; "" for a user's mistake.
    """

    config: dict[str, Any]
    choices: dict[str, str]
    seed: int
    digest: str
    environment: dict[str, Any]
    seconds: dict[str, float]
    stage: str
    kind: str
    message: str
    traceback: str
    finished_at: str
    contents: dict[str, str] | None = None
    schema: int = SCHEMA


def to_json(record: object) -> str:
    """Returns the record as indented JSON; infinite and NaN values become null."""
    return json.dumps(plain(record), indent=2, allow_nan=False) + "\n"


def from_json(kind: type[Record], text: str, source: str) -> Record:
    """Returns the record of type `kind` (a dataclass above) that `text` holds.

    Args:
        kind: for example `Report`.
        text: JSON.
        source: the file's name, for messages.

    Raises:
        DataError: `text` is not JSON, has another schema version, or has a field that is missing,
            unknown or of the wrong type (the message names it).
    """
    if "\\u00" in text or "\x7f" in text or not text.isascii():  # found faster than replaced
        text = CONTROL.sub("?", text)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source} is not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise DataError(f"{source} is not a record: it holds no JSON object")
    if any(f.name == "schema" for f in dataclasses.fields(kind)):  # type: ignore[arg-type]
        found = value.get("schema")
        if found != SCHEMA:
            raise DataError(
                f"{source} has schema version {found!r}; this prunebench reads version {SCHEMA}"
            )
    return typing.cast(Record, decode(kind, value, source, ""))


def write_json(path: str | os.PathLike[str], record: object) -> None:
    """Writes the record as JSON, atomically: even a power cut leaves a whole file or none."""
    write_bytes(path, to_json(record).encode())


def finish(folder: str | os.PathLike[str], outcome: Report | Failure) -> Path:
    """Writes ``report.json`` or ``failure.json`` and removes the other; returns its path."""
    won = isinstance(outcome, Report)
    path = Path(folder) / (REPORT if won else FAILURE)
    write_json(path, outcome)
    (Path(folder) / (FAILURE if won else REPORT)).unlink(missing_ok=True)
    sync_folder(path.parent)
    return path
