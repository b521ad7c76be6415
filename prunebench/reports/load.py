"""Reads runs in any state, finished or not, from files and folders."""

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
    """Holds the runs at some paths, each with the file that describes it.

    Attributes:
        reports: of runs that finished.
        failures: of runs that failed.
        unfinished: runs that are going on, were killed or interrupted, or go on after a failure.
        damaged: one line for each file that cannot be read, naming it and the reason.
        hidden: how many failures were removed because the user does not want to see them.
        elsewhere: lines on published rows that are not shown beside the runs.
    """

    reports: list[tuple[Path, Report]] = field(default_factory=list)
    failures: list[tuple[Path, Failure]] = field(default_factory=list)
    unfinished: list[tuple[Path, Unfinished]] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    hidden: int = 0
    elsewhere: list[str] = field(default_factory=list)

    def hide_failures(self) -> None:
        """Removes the failures, but remembers how many there were."""
        self.hidden, self.failures = len(self.failures), []


def load_runs(paths: Sequence[str | os.PathLike[str]]) -> Runs:
    """Returns the runs at `paths`, each file once.

    Args:
        paths: record files, or folders that are searched with all their subfolders.

    Raises:
        DataError: a path does not exist, or no readable run is found.
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
    """Adds the run that the file `path` describes to `runs`."""
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
    """Leaves one record of each run: a failure is dropped if the run has gone on since.

    A kill after one record is written and before the other is removed leaves both; the later
    counts.
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
