"""Describes runs without an end: still going on in some process, interrupted or killed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prunebench.errors import DataError
from prunebench.locks import is_held
from prunebench.records import FAILURE, INTERRUPTED
from prunebench.records.jsonfile import read_object
from prunebench.records.metrics import read_metrics

#: file that says, from the beginning of the run, which run a folder belongs to
IDENTITY = "run.json"
METRICS = "metrics.jsonl"
LOCK = ".lock"


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """Describes a run without a report that is going on, was interrupted, or was killed.

    Attributes:
        config, choices, contents, seed: as in `Report`.
        running: whether a process works in the folder.
        stage: of the last row of metrics; ``start`` before the first.
        epoch: of that row out of all epochs, ``3/25``; "" outside training.
        seen: local time at which that row was written, or else the identity file.
        interrupted: whether the run was asked to stop, and did.
    """

    config: dict[str, Any]
    choices: dict[str, str]
    contents: dict[str, str] | None
    seed: int
    running: bool
    stage: str
    epoch: str
    seen: datetime
    interrupted: bool = False


def read_unfinished(path: Path) -> Unfinished:
    """Returns the unfinished run whose identity file is `path`.

    Raises:
        DataError: the identity or the metrics are damaged (the message names the file).
    """
    metrics = path.with_name(METRICS)
    rows = read_metrics(metrics)
    last = rows[-1] if rows else {"stage": "start"}
    try:
        written = (metrics if rows else path).stat().st_mtime
        identity = json.loads(path.read_text(encoding="utf-8"))
        return Unfinished(
            config=identity["config"],
            choices=identity["choices"],
            contents=identity.get("contents"),
            seed=identity["config"]["run"]["seed"],
            running=in_use(path.parent),
            stage=str(last["stage"]),
            epoch=f"{last['epoch']}/{last['epochs']}" if {"epoch", "epochs"} <= last.keys() else "",
            seen=datetime.fromtimestamp(written, tz=UTC).astimezone(),
            interrupted=was_interrupted(path.parent),
        )
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error})") from None
    except (KeyError, TypeError, AttributeError):
        raise DataError(f"{path} does not say which run it belongs to") from None


def was_interrupted(folder: Path) -> bool:
    """Returns whether the run in `folder` stopped on request and has not gone on since."""
    return read_object(folder / FAILURE).get("kind") == INTERRUPTED


def in_use(folder: Path) -> bool:
    """Returns whether a process works in the run's folder, as far as this machine can tell."""
    return is_held(folder / LOCK)
