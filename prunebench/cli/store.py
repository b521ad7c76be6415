"""Implements ``prunebench store``: lists, verifies and removes stored baselines."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunebench.errors import CheckpointError, ConfigError, DataError, Parser
from prunebench.locks import Timeout, locked
from prunebench.records import REPORT
from prunebench.records.below import below
from prunebench.records.jsonfile import digest, read_object
from prunebench.records.unfinished import LOCK, in_use
from prunebench.sweeps.status import span

#: files of an entry: all that decides its baseline, and the trained network
IDENTITY, NETWORK = "identity.json", Path("stages") / "baseline.pt"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Describes one baseline of the store.

    Attributes:
        folder: of the entry; its name is a digest of all that decides the baseline.
        identity: all that decides the baseline; empty if it cannot be read.
        state: ``trained``, ``training`` or ``unfinished``.
        size: of its files, in bytes.
        age: seconds since it was last written to.
        users: reports in the same outputs that started from it.
    """

    folder: Path
    identity: dict[str, Any]
    state: str
    size: int
    age: float
    users: int

    @property
    def about(self) -> str:
        """A short description: model, dataset, epochs and seed."""
        parts = [
            str((self.identity.get(key) or {}).get("_target_", "?")).rpartition(".")[2]
            for key in ("model", "dataset")
        ]
        epochs = (self.identity.get("recipe") or {}).get("epochs", "?")
        return f"{' on '.join(parts)}, {epochs} epochs, seed {self.identity.get('seed', '?')}"

    @property
    def matches_identity(self) -> bool:
        """Whether the folder's name is the digest of its identity."""
        return digest(self.identity).startswith(self.folder.name)


def main(words: Sequence[str]) -> int:
    """Executes the verb that `words` begin with; returns the exit code, 1 for a damaged entry.

    Raises:
        ConfigError: an entry does not exist, or is being trained.
        DataError: there is no store.
    """
    options = _parser().parse_args(words)
    found = entries(options.outputs)
    unknown = {*options.entries} - {entry.folder.name for entry in found}
    if unknown:
        raise ConfigError(
            f"the store has no {', '.join(sorted(unknown))}; prunebench store list names all"
        )
    asked = {*options.entries} or {entry.folder.name for entry in found}
    chosen = [entry for entry in found if entry.folder.name in asked]
    if options.verb == "verify":
        return verify(chosen)
    if options.verb == "prune":
        return prune(chosen, unused_only=not options.entries, sure=options.yes)
    tell(chosen, whole=options.verb == "show")
    return 0


def entries(outputs: Path) -> list[Entry]:
    """Returns the entries of the store in `outputs`.

    Raises:
        DataError: there is no store.
    """
    store = outputs / "baselines"
    if not store.is_dir():
        raise DataError(f"no baselines in {store}; --outputs FOLDER names your run.outputs")
    named = (read_object(path).get("baseline") for path in below(outputs, REPORT))
    users = Counter(str(name) for name in named if name)
    found = []
    for folder in sorted(path for path in store.iterdir() if path.is_dir()):
        files = [path for path in folder.rglob("*") if path.is_file()]
        last = max((path.stat().st_mtime for path in files), default=folder.stat().st_mtime)
        trained = (folder / NETWORK).exists()
        found.append(
            Entry(
                folder=folder,
                identity=read_object(folder / IDENTITY),
                state="trained" if trained else "training" if in_use(folder) else "unfinished",
                size=sum(path.stat().st_size for path in files),
                age=time.time() - last,
                users=users[folder.name],
            )
        )
    return found


def tell(chosen: Sequence[Entry], *, whole: bool) -> None:
    """Prints a line for each entry, and with `whole` its identity as JSON."""
    for entry in chosen:
        sys.stdout.write(
            f"{entry.folder.name}  {entry.state:<10}  {entry.size / 1e6:8.1f} MB  "
            f"{span(entry.age):>7} old  {entry.users:4d} reports  {entry.about}\n"
        )
        if whole:
            sys.stdout.write(json.dumps(entry.identity, indent=2) + "\n")
    size = sum(entry.size for entry in chosen)
    sys.stdout.write(f"{len(chosen)} baselines, {size / 1e6:.1f} MB\n")


def verify(chosen: Sequence[Entry]) -> int:
    """Reads every trained network in full; returns 1 if one is damaged."""
    from prunebench.checkpoints import load

    damaged = 0
    for entry in chosen:
        verdict = entry.state
        if entry.state == "trained":
            try:
                load(entry.folder / NETWORK)
                verdict = "whole" + (
                    "" if entry.matches_identity else f", but its {IDENTITY} is of another"
                )
            except CheckpointError as error:
                damaged, verdict = 1, f"damaged: {error}"
        sys.stdout.write(f"{entry.folder.name}  {verdict}\n")
    return damaged


def prune(chosen: Sequence[Entry], *, unused_only: bool, sure: bool) -> int:
    """Removes the chosen entries, with `unused_only` those without reports; returns the exit code.

    The user is asked first, unless `sure`.

    Raises:
        ConfigError: a named entry is being trained, or there is no terminal to ask at.
    """
    going = [entry for entry in chosen if entry.state != "training"]
    if unused_only:
        going = [entry for entry in going if not entry.users]
    elif len(going) < len(chosen):
        raise ConfigError("an entry that is being trained is not removed; wait for its run")
    tell(going, whole=False)
    if not going:
        return 0
    if not sure and not _user_agrees():
        return 1
    for entry in going:
        try:
            with locked(entry.folder / LOCK, timeout=0):
                shutil.rmtree(entry.folder, ignore_errors=True)
        except Timeout:
            sys.stdout.write(f"{entry.folder.name} is in use now and was kept\n")
    return 0


def _user_agrees() -> bool:
    if not sys.stdin.isatty():
        raise ConfigError("cannot ask without a terminal; add --yes to remove them")
    sys.stdout.write("remove them? [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="prunebench store",
        description=(
            "The trained baselines that runs share. list: content, size, age, users; show: all "
            "settings of one; verify: reads each in full; prune: removes those that no report "
            "uses, or the named ones."
        ),
    )
    parser.add_argument("verb", choices=("list", "show", "verify", "prune"))
    parser.add_argument("entries", nargs="*", metavar="ENTRY", help="default: all")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="as in run.outputs")
    parser.add_argument("--yes", action="store_true", help="prune: do not ask for confirmation")
    return parser
