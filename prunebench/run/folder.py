"""Claims a run's folder for one process, and finds it again for ``run.resume=true``.

A run that ends leaves exactly one of ``report.json`` and ``failure.json`` in its folder.
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
from prunebench.config.secrets import redacted
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

#: endings of the config keys that name the user's own code; the file's content counts, too
CODE = ("._target_", "model.code")


@dataclass(frozen=True)
class RunFolder:
    """Describes a run's folder, in which only this process may work.

    Attributes:
        path: of the folder.
        ledger: the finished stages, kept in the folder.
        fresh: whether this is the first attempt at the run.
        notes: names of the files that record how the configuration was composed.
        finished: the report, if an earlier attempt completed it.
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
    """Holds the lock of the run's folder: `fresh`, or with ``run.resume`` the one to go on in.

    Args:
        run: the checked configuration.
        fresh: the folder of a new run.
        notes: file name -> text; written into the folder of a new run.
        note: shows the user a line.

    Raises:
        ConfigError: another process works in the folder, or it holds another run.
    """
    path = find(run, fresh) if run.settings.resume else fresh
    path.mkdir(parents=True, exist_ok=True)
    try:  # a command that reads the run's state holds the lock for a moment
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
            for stale in (records.FAILURE, WAITING):  # neither is true any longer
                (path / stale).unlink(missing_ok=True)
        else:
            require_empty(path, ledger)
            describe(run, path, notes)
        report = path / records.REPORT
        yield RunFolder(path, ledger, not begun, notes.keys(), report if report.exists() else None)


def require_empty(folder: Path, ledger: Ledger) -> None:
    """Raises ConfigError if `folder`, which names no run, holds a report or finished stages."""
    held = [folder / records.REPORT, *ledger.folder.glob("*.pt")]
    found = next((path.relative_to(folder) for path in held if path.exists()), None)
    require(
        found is None,
        f"{folder} holds {found} of an unknown run, because its {IDENTITY} is missing; "
        "choose another hydra.run.dir, or delete the folder",
    )


def require_same(run: Run, folder: Path) -> None:
    """Raises ConfigError if the run that `folder` names is not `run`.

    If it is, the run goes on even without ``run.resume``: a cluster that requeues an interrupted
    job starts it again with the same command.
    """
    there = read_object(folder / IDENTITY)
    require(
        there.get("digest") == run.digest,
        f"{folder} holds another run: {difference(run, there)}; choose another hydra.run.dir (in "
        "a sweep: hydra.sweep.subdir)",
    )


def mended(run: Run, folder: Path) -> bool:
    """Returns whether the run in `folder` failed and only the user's own code has changed since."""
    failed = (folder / records.FAILURE).exists() and not was_interrupted(folder)
    keys = differing(run, read_object(folder / IDENTITY))
    return failed and bool(keys) and all(key.startswith("the code of ") for key in keys)


def difference(run: Run, there: Mapping[str, Any]) -> str:
    """Returns a phrase that names the settings in which `run` differs from the identity `there`."""
    if not there.get("config"):
        return f"its {IDENTITY} is damaged"
    return f"it differs in {', '.join(differing(run, there)) or 'the version of prunebench'}"


def differing(run: Run, there: Mapping[str, Any]) -> list[str]:
    """Returns the keys of settings that decide a result and differ between `run` and `there`.

    Where only the content of the user's file has changed, the key reads "the code of ...".
    """
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
    """Writes `notes` and the identity file, which says which run the folder belongs to.

    The identity comes last: a folder that has it has everything.
    """
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
    """Returns the folder of the newest run with this configuration; unfinished ones come first.

    That is `fresh` if there is none, or if `fresh` itself holds the run, as it does when a cluster
    starts a job again in its old folder.
    """
    places = [fresh / IDENTITY, *below(Path(run.settings.outputs), IDENTITY)]
    same = [path for path in places if read_object(path).get("digest") == run.digest]
    if not same or same[0] == places[0]:
        return fresh
    unfinished = [path for path in same if not (path.parent / records.REPORT).exists()]
    return max(unfinished or same, key=lambda path: path.stat().st_mtime).parent


def discard_refused(folder: RunFolder) -> bool:
    """Empties a new folder in which nothing was computed; returns False if there is more in it."""
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
    """Writes ``failure.json`` if the body raises, and re-raises.

    A new run that is refused before anything was computed leaves no trace, unless `refusals` is
    set.
    """
    try:
        yield
    except BaseException as error:
        mistake = isinstance(error, PrunebenchError)
        # submitit raises SystemExit to end a job that it puts back into the queue
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
            message=redacted(str(error), run.hidden),
            traceback="" if mistake or stopped else redacted(traceback.format_exc(), run.hidden),
            contents=run.contents,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        records.finish(folder.path, failure)
        raise
