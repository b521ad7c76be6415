"""The folder a run works in: claimed by one process, found again by ``run.resume=true``.

A run that ends leaves exactly one of ``report.json`` and ``failure.json`` in it.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from prunebench import records
from prunebench.config import Run
from prunebench.errors import ConfigError, PrunebenchError
from prunebench.records.environment import environment
from prunebench.run.ledger import Ledger

#: says which configuration a folder belongs to
IDENTITY = "run.json"


@dataclass(frozen=True)
class RunFolder:
    """The folder in which this process, and no other, may work.

    Attributes:
        path: of the folder.
        ledger: the stages that are done, in it.
        finished: the report an earlier attempt completed, if any.
    """

    path: Path
    ledger: Ledger
    finished: Path | None


@contextmanager
def claim(run: Run, fresh: Path) -> Iterator[RunFolder]:
    """Holds the run's folder: `fresh`, or with ``run.resume`` the one to go on in.

    Raises:
        ConfigError: another process works in the folder, or it holds a run and ``run.resume``
            is false.
    """
    folder = find(run, fresh) if run.settings.resume else fresh
    if not run.settings.resume and (folder / IDENTITY).exists():
        raise ConfigError(
            f"{folder} already holds a run; go on with run.resume=true or choose another "
            "hydra.run.dir"
        )
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout:
        raise ConfigError(f"the run in {folder} is still going on in another process") from None
    with lock:
        if folder != fresh:
            remove_if_empty(fresh)
        report = folder / records.REPORT
        records.write_json(
            folder / IDENTITY, {"digest": run.digest, "config": run.config, "choices": run.choices}
        )
        ledger = Ledger(folder, every_seconds=run.settings.checkpoint_seconds)
        yield RunFolder(folder, ledger, report if report.exists() else None)


def find(run: Run, fresh: Path) -> Path:
    """Returns the folder of the newest run of this configuration, an unfinished one first.

    `fresh` is returned where there is none, or where it holds a run itself (a job that a cluster
    started again in its old folder).
    """
    if (fresh / IDENTITY).exists():
        return fresh
    same = [
        path
        for path in Path(run.settings.outputs).rglob(IDENTITY)
        if recorded_digest(path) == run.digest
    ]
    unfinished = [path for path in same if not (path.parent / records.REPORT).exists()]
    candidates = unfinished or same
    if not candidates:
        return fresh
    return max(candidates, key=lambda path: path.stat().st_mtime).parent


def recorded_digest(path: Path) -> str | None:
    """Returns the digest in an identity file, or None if the file is damaged."""
    try:
        found = json.loads(path.read_text())["digest"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(found)


def remove_if_empty(folder: Path) -> None:
    """Removes the folder that Hydra made for a run that goes on elsewhere."""
    for path in [*folder.glob(".hydra/*"), *folder.glob("*.log")]:
        path.unlink()
    with suppress(OSError):  # something of the user's is in there: leave it
        (folder / ".hydra").rmdir()
        folder.rmdir()


@contextmanager
def failure_recorded(run: Run, folder: RunFolder) -> Iterator[None]:
    """Writes ``failure.json`` if the body raises, and lets the exception go on."""
    try:
        yield
    except BaseException as error:
        mistake = isinstance(error, PrunebenchError)
        failure = records.Failure(
            config=run.config,
            choices=run.choices,
            seed=run.settings.seed,
            digest=run.digest,
            environment=environment(),
            seconds=folder.ledger.seconds,
            stage=folder.ledger.under_way,
            kind=type(error).__name__,
            message=str(error),
            traceback="" if mistake else traceback.format_exc(),
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        records.finish(folder.path, failure)
        raise
