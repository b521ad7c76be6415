"""Finished and failed runs, read from files and folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from prunebench.errors import DataError
from prunebench.records import FAILURE, REPORT, Failure, Report, from_json

Record = TypeVar("Record", Report, Failure)


def load_runs(
    paths: Sequence[str | os.PathLike[str]],
) -> tuple[list[tuple[Path, Report]], list[tuple[Path, Failure]]]:
    """Returns the reports and the failures at `paths`, each with its file, every file once.

    Args:
        paths: record files, or folders that are searched with all their subfolders.

    Raises:
        DataError: a path is not there, no run is found, or a record is damaged or of another
            schema version (the message names the file).
    """
    reports: dict[Path, Report] = {}
    failures: dict[Path, Failure] = {}
    for path in _record_files(paths):
        if path.name.endswith(FAILURE):
            failures[path] = _read(Failure, path)
        else:
            reports[path] = _read(Report, path)
    _drop_replaced(reports, failures)
    if not reports and not failures:
        places = ", ".join(str(path) for path in paths)
        raise DataError(f"no {REPORT} or {FAILURE} in {places}; run prunebench first")
    return list(reports.items()), list(failures.items())


def _record_files(paths: Sequence[str | os.PathLike[str]]) -> Iterator[Path]:
    seen: set[Path] = set()
    for given in map(Path, paths):
        if given.is_dir():
            found = sorted([*given.rglob(REPORT), *given.rglob(FAILURE)])
        elif given.is_file():
            found = [given]
        else:
            raise DataError(f"{given} is not there; give report files or folders of runs")
        for path in found:
            if path.resolve() not in seen:
                seen.add(path.resolve())
                yield path


def _read(kind: type[Record], path: Path) -> Record:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error})") from None
    return from_json(kind, text, str(path))


def _drop_replaced(reports: dict[Path, Report], failures: dict[Path, Failure]) -> None:
    # A kill between writing one record and removing the other leaves both: the later one counts.
    for path, failure in list(failures.items()):
        other = path.with_name(path.name.replace(FAILURE, REPORT))
        if other in reports:
            if failure.finished_at > reports[other].finished_at:
                del reports[other]
            else:
                del failures[path]
