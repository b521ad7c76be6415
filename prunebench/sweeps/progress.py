"""Reads from its folder how far a run has come."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from prunebench.errors import DataError
from prunebench.records import FAILURE, REPORT
from prunebench.records.attempts import read_attempts
from prunebench.records.metrics import read_metrics
from prunebench.records.unfinished import METRICS, in_use, was_interrupted
from prunebench.records.waiting import whom_for

#: all states of a job
STATES = ("done", "running", "waiting", "failed", "interrupted", "lost", "not begun")
#: a job on another machine counts as lost after so many seconds without a sign of life
SILENCE = 900.0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Describes how far one job of a sweep, or a single run, has come.

    Attributes:
        name: of its folder, or what sets the job apart from others.
        state: one of `STATES`; a job is lost if its process is gone but left no record of its end.
        stage: the current one; "" if none.
        epoch: of that stage out of all epochs, ``3/25``; "" outside training.
        eta: seconds that the stage still takes at its pace so far; None if unknown.
        silent: seconds since the last sign of life; None if there was none.
        host: of the last attempt; "" if unknown.
        why: it failed, or for whom it waits, in one line.
    """

    name: str
    state: str
    stage: str = ""
    epoch: str = ""
    eta: float | None = None
    silent: float | None = None
    host: str = ""
    why: str = ""


def progress_in(folder: Path) -> Progress:
    """Returns how far the run in `folder` has come."""
    name = folder.name
    if (folder / REPORT).exists():
        return Progress(name=name, state="done")
    attempts = read_attempts(folder)
    host = str(attempts[-1].get("host", "")) if attempts else ""
    silent = time.time() - last_sign(folder)
    stage, epoch, eta = under_way(folder)
    state, why = _state(folder, host, silent), ""
    if state == "failed":
        why = failure_in(folder)
    elif state == "running" and (whom := whom_for(folder)):
        state, why = "waiting", f"for {whom}"
    return Progress(
        name=name,
        state=state,
        stage=stage,
        epoch=epoch,
        eta=eta if state == "running" else None,
        silent=silent,
        host=host,
        why=why,
    )


def last_sign(folder: Path) -> float:
    """Returns when something in `folder` was last written, as a Unix time."""
    entries = [folder, *folder.iterdir(), *(folder / "stages").glob("*")]
    return max((path.lstat().st_mtime for path in entries if path.exists()), default=0.0)


def under_way(folder: Path) -> tuple[str, str, float | None]:
    """Returns stage, epoch and remaining seconds according to the run's metrics."""
    try:
        rows = read_metrics(folder / METRICS)
    except DataError:
        return "", "", None
    if not rows:
        return "start", "", None
    last = rows[-1]
    if not {"epoch", "epochs"} <= last.keys():
        return str(last["stage"]), "", None
    paces = [row["seconds"] for row in rows if row["stage"] == last["stage"] and "seconds" in row]
    left = last["epochs"] - last["epoch"]
    eta = left * sum(paces) / len(paces) if paces else None
    return str(last["stage"]), f"{last['epoch']}/{last['epochs']}", eta


def failure_in(folder: Path) -> str:
    """Returns why the run in `folder` failed, in one line."""
    try:
        failure = json.loads((folder / FAILURE).read_text(encoding="utf-8"))
        first = str(failure["message"]).strip().partition("\n")[0]
        return f"{failure['stage']}: {first or failure['kind']}"
    except (OSError, ValueError, LookupError, TypeError):
        return f"its {FAILURE} is damaged"


def _state(folder: Path, host: str, silent: float) -> str:
    elsewhere = host not in ("", socket.gethostname())
    if in_use(folder) or (elsewhere and silent < SILENCE and not (folder / FAILURE).exists()):
        return "running"
    if not (folder / FAILURE).exists():
        return "lost"
    return "interrupted" if was_interrupted(folder) else "failed"
