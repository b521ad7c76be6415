"""Keeps the log of metrics that a run writes as it goes, ``metrics.jsonl``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunebench.errors import DataError
from prunebench.records.jsonfile import plain, write_bytes


class MetricsLog:
    """Appends to a run's log of metrics: one JSON object per line, on disk before `append` returns.

    Rows carry ``stage`` and, inside training, ``epoch``; no two rows share both. A resumed run
    appends rows again, which replace those that are there. If the caller appends a row before it
    saves the checkpoint after it, a kill in between loses nothing.
    """

    def __init__(self, path: str | os.PathLike[str], *, fresh: bool = False) -> None:
        """Opens the log at `path`; a `fresh` log starts empty, whatever the file holds.

        Raises:
            DataError: a line other than the last is damaged.
        """
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = [] if fresh else read_metrics(self.path)
        self._lines = {_key(row): _line(row) for row in rows}
        self._rewrite()  # drops a last line that a kill cut short

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows, earlier attempts included, in the order in which they were first appended."""
        return [json.loads(line) for line in self._lines.values()]

    def append(self, row: Mapping[str, Any]) -> bool:
        """Writes `row`; replaces an earlier row of the same stage and epoch.

        Returns:
            Whether there was no earlier row.
        """
        key, line = _key(row), _line(row)
        before = self._lines.get(key)
        self._lines[key] = line
        if before is None:
            with self.path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        elif before != line:
            self._rewrite()
        return before is None

    def _rewrite(self) -> None:
        write_bytes(self.path, b"".join(self._lines.values()))


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Returns the rows of a metrics log, without a last line cut short by a kill.

    The list is empty if there is no file.

    Raises:
        DataError: a line other than the last is damaged.
    """
    try:
        lines = Path(path).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    rows: dict[tuple[Any, Any], dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            rows[_key(row)] = row
        except (ValueError, KeyError, TypeError):
            if number < len(lines):
                raise DataError(f"{path}: line {number} is damaged") from None
    return list(rows.values())


def _key(row: Mapping[str, Any]) -> tuple[Any, Any]:
    return row["stage"], row.get("epoch")


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(plain(row), allow_nan=False).encode() + b"\n"
