"""Runs in every state they can be in, read from files and folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from prunebench.errors import DataError
from prunebench.records import FAILURE, REPORT, Failure, Report, from_json
from prunebench.records.below import below
from prunebench.records.unfinished import (
    IDENTITY,
    Unfinished,
    in_use,
    read_unfinished,
    was_interrupted,
)

Record = TypeVar("Record", Report, Failure)


@dataclass
class Runs:
    """The runs at some places, each with the file that tells of it.

    Attributes:
        reports: of the runs that came to their end.
        failures: of those that ended early.
        unfinished: those without an end, those that were interrupted, and those that have been
            taken up again after a failure.
        damaged: what is wrong with each file that could not be read; one line names the file.
        hidden: how many failures were taken out because nobody wants to see them.
        elsewhere: where published rows are that do not stand beside the runs.
    """

    reports: list[tuple[Path, Report]] = field(default_factory=list)
    failures: list[tuple[Path, Failure]] = field(default_factory=list)
    unfinished: list[tuple[Path, Unfinished]] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    hidden: int = 0
    elsewhere: list[str] = field(default_factory=list)

    def hide_failures(self) -> None:
        """Takes the failures out; how many there were stays known."""
        self.hidden, self.failures = len(self.failures), []


def load_runs(paths: Sequence[str | os.PathLike[str]]) -> Runs:
    """Returns the runs at `paths`, every file once.

    Args:
        paths: record files, or folders that are searched with all their subfolders.

    Raises:
        DataError: a path is not there, or no run is found that can be read.
    """
    runs = Runs()
    for path in _files(paths):
        try:
            _read(path, runs)
        except DataError as error:
            runs.damaged.append(str(error))
    _drop_replaced(runs)
    if runs.reports or runs.failures or runs.unfinished:
        return runs
    if runs.damaged:
        more = f" ({len(runs.damaged) - 1} more are damaged)" if len(runs.damaged) > 1 else ""
        raise DataError(runs.damaged[0] + more)
    places = ", ".join(str(path) for path in paths)
    raise DataError(f"no {REPORT} or {FAILURE} in {places}; run prunebench first")


def _files(paths: Sequence[str | os.PathLike[str]]) -> Iterator[Path]:
    seen: set[Path] = set()
    for given in map(Path, paths):
        if given.is_dir():
            found = [*below(given, REPORT, FAILURE), *below(given, IDENTITY)]
        elif given.is_file():
            found = [given]
        else:
            raise DataError(f"{given} is not there; give report files or folders of runs")
        for path in found:
            if path.resolve() not in seen:
                seen.add(path.resolve())
                yield path


def _read(path: Path, runs: Runs) -> None:
    """Adds the run that `path` tells of to `runs`."""
    if path.name == IDENTITY:
        if not path.with_name(REPORT).exists() and (
            not path.with_name(FAILURE).exists()
            or was_interrupted(path.parent)
            or in_use(path.parent)
        ):
            runs.unfinished.append((path, read_unfinished(path)))
    elif path.name.endswith(FAILURE):
        runs.failures.append((path, _record(Failure, path)))
    else:
        runs.reports.append((path, _record(Report, path)))


def _record(kind: type[Record], path: Path) -> Record:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error})") from None
    record = from_json(kind, text, str(path))
    for key, value in record.config.items():
        if key != "name" and not isinstance(value, dict):
            raise DataError(f"{path}: config.{key} must hold keys and values, got {value!r:.40}")
    return record


def _drop_replaced(runs: Runs) -> None:
    """Leaves one record of each run: the failure from before it was taken up again goes.

    A kill between writing one record and removing the other leaves both: the later one counts.
    """
    taken_up = {path.with_name(FAILURE) for path, _ in runs.unfinished}
    reports, failures = dict(runs.reports), dict(runs.failures)
    for path, failure in runs.failures:
        other = path.with_name(path.name.replace(FAILURE, REPORT))
        later = other in reports and failure.finished_at > reports[other].finished_at
        if later:
            del reports[other]
        elif other in reports or path in taken_up:
            del failures[path]
    runs.reports, runs.failures = list(reports.items()), list(failures.items())
