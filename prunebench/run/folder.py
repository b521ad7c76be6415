"""The folder a run works in: claimed by one process, found again by ``run.resume=true``.

A run that ends leaves exactly one of ``report.json`` and ``failure.json`` in it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prunebench import records
from prunebench.config import Run
from prunebench.config.secrets import unsaid
from prunebench.errors import ConfigError, PrunebenchError, TrainingError, require
from prunebench.locks import Timeout, locked
from prunebench.records.attempts import ATTEMPTS
from prunebench.records.below import below
from prunebench.records.environment import environment
from prunebench.records.identity import deciding, dotted
from prunebench.records.jsonfile import read_object, remove_temporaries, write_bytes
from prunebench.records.unfinished import IDENTITY, LOCK, METRICS, was_interrupted
from prunebench.records.waiting import WAITING
from prunebench.run.ledger import Ledger

#: how the keys end that go by what a file with the user's own code holds
CODE = ("._target_", "model.code")


@dataclass(frozen=True)
class RunFolder:
    """The folder in which this process, and no other, may work.

    Attributes:
        path: of the folder.
        ledger: the stages that are done, in it.
        fresh: whether no attempt at this run was made before.
        notes: files in it that say how it was composed.
        finished: the report an earlier attempt completed, if any.
    """

    path: Path
    ledger: Ledger
    fresh: bool
    notes: Collection[str]
    finished: Path | None


@contextmanager
def claim(
    run: Run, fresh: Path, notes: Mapping[str, str], note: Callable[[str], None]
) -> Iterator[RunFolder]:
    """Holds the run's folder: `fresh`, or with ``run.resume`` the one to go on in.

    Args:
        run: what to do.
        fresh: a folder for it.
        notes: file name -> text, left in the folder once it is the run's own.
        note: tells the user a line.

    Raises:
        ConfigError: another process works in the folder, or it holds another run.
    """
    path = find(run, fresh) if run.settings.resume else fresh
    path.mkdir(parents=True, exist_ok=True)
    try:  # whoever looks at the run's state holds the lock for a moment
        lock = locked(path / LOCK, note, timeout=0.5)
    except Timeout:
        raise ConfigError(f"the run in {path} is still running in another process") from None
    with lock:
        remove_temporaries(path)
        ledger = Ledger(path, every_seconds=run.settings.checkpoint_seconds)
        begun = (path / IDENTITY).exists()
        if begun and mended(run, path):
            note(f"code has changed since the run in {path} failed: it starts anew")
            ledger.clear()
            for stale in (records.FAILURE, WAITING, METRICS, ATTEMPTS, IDENTITY):
                (path / stale).unlink(missing_ok=True)
            begun = False
        if begun:
            require_same(run, path)
            for stale in (records.FAILURE, WAITING):  # it is under way again
                (path / stale).unlink(missing_ok=True)
        else:
            require_empty(path, ledger)
            describe(run, path, notes)
        report = path / records.REPORT
        yield RunFolder(path, ledger, not begun, notes.keys(), report if report.exists() else None)


def require_empty(folder: Path, ledger: Ledger) -> None:
    """Raises ConfigError if `folder`, which does not say whose it is, holds what a run computed."""
    held = [folder / records.REPORT, *ledger.folder.glob("*.pt")]
    found = next((path.relative_to(folder) for path in held if path.exists()), None)
    require(
        found is None,
        f"{folder} holds {found} of an unknown run, because its {IDENTITY} is missing; "
        "choose another hydra.run.dir, or delete the folder",
    )


def require_same(run: Run, folder: Path) -> None:
    """Raises ConfigError unless `folder`, which holds a run, holds this one to go on with.

    It goes on whether or not ``run.resume`` says so: a cluster starts a job that it took off its
    node again with the same words.
    """
    there = read_object(folder / IDENTITY)
    require(
        there.get("digest") == run.digest,
        f"{folder} holds another run: {difference(run, there)}; choose another hydra.run.dir (in "
        "a sweep: hydra.sweep.subdir)",
    )


def mended(run: Run, folder: Path) -> bool:
    """Whether the run in `folder` failed, and nothing is another today but the user's own code."""
    failed = (folder / records.FAILURE).exists() and not was_interrupted(folder)
    keys = differing(run, read_object(folder / IDENTITY))
    return failed and bool(keys) and all(key.startswith("the code of ") for key in keys)


def difference(run: Run, there: Mapping[str, Any]) -> str:
    """Says in which settings `run` differs from the one recorded `there`."""
    if not there.get("config"):
        return f"its {IDENTITY} is damaged"
    return f"it differs in {', '.join(differing(run, there)) or 'the version of prunebench'}"


def differing(run: Run, there: Mapping[str, Any]) -> list[str]:
    """Returns what decides a result and is another in `run` than `there`, in words."""
    config, held = there.get("config", {}), there.get("contents") or {}
    found, wanted = (
        dict(dotted(deciding(config, held))),
        dict(dotted(deciding(run.config, run.contents))),
    )
    keys = [key for key in {**wanted, **found} if wanted.get(key) != found.get(key)]
    named, now = dict(dotted(config)), dict(dotted(run.config))
    same = {key for key in keys if key.endswith(CODE) and named.get(key) == now.get(key)}
    return [f"the code of {key}" if key in same else key for key in keys]


def describe(run: Run, folder: Path, notes: Mapping[str, str]) -> None:
    """Writes down which run the folder belongs to; what says so comes last."""
    for name, text in notes.items():
        write_bytes(folder / name, text.encode())
    identity = {
        "digest": run.digest,
        "config": run.recorded,
        "choices": run.choices,
        "contents": run.contents,
    }
    records.write_json(folder / IDENTITY, identity)


def find(run: Run, fresh: Path) -> Path:
    """Returns the folder of the newest run of this configuration, an unfinished one first.

    `fresh` is returned where there is none, or where it holds the run itself (a job that a cluster
    started again in its old folder).
    """
    places = [fresh / IDENTITY, *below(Path(run.settings.outputs), IDENTITY)]
    same = [path for path in places if read_object(path).get("digest") == run.digest]
    if not same or same[0] == places[0]:
        return fresh
    unfinished = [path for path in same if not (path.parent / records.REPORT).exists()]
    return max(unfinished or same, key=lambda path: path.stat().st_mtime).parent


def discard_refused(folder: RunFolder) -> bool:
    """Empties the folder of a run that was refused before anything was computed; says if it was."""
    own = [*folder.notes, IDENTITY, ATTEMPTS, METRICS, LOCK]
    found = [str(path.relative_to(folder.path)) for path in folder.path.rglob("*")]
    others = {name for name in found if (folder.path / name).is_file()} - {*own}
    if not folder.fresh or any(not name.endswith(".log") for name in others):
        return False
    for name in own:
        (folder.path / name).unlink(missing_ok=True)
    for name in {Path(name).parts[0] for name in folder.notes}:
        (folder.path / name).rmdir()
    return True


@contextmanager
def failure_recorded(run: Run, folder: RunFolder, *, refusals: bool) -> Iterator[None]:
    """Writes ``failure.json`` if the body raises, and lets the exception go on.

    With `refusals` a run that is refused before it computed anything is a failure, too.
    """
    try:
        yield
    except BaseException as error:
        mistake = isinstance(error, PrunebenchError)
        # submitit ends a job that it puts back into the queue by SystemExit
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        refused = mistake and not isinstance(error, TrainingError) and not refusals
        if refused and discard_refused(folder):
            raise
        failure = records.Failure(
            config=run.recorded,
            choices=run.choices,
            seed=run.settings.seed,
            digest=run.digest,
            environment=environment(),
            seconds=folder.ledger.seconds,
            stage=folder.ledger.under_way,
            kind=records.INTERRUPTED if stopped else type(error).__name__,
            message=unsaid(str(error), run.hidden),
            traceback="" if mistake or stopped else unsaid(traceback.format_exc(), run.hidden),
            contents=run.contents,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        records.finish(folder.path, failure)
        raise
