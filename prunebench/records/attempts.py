"""Keeps ``attempts.jsonl``: which processes worked on a run, when and where, one per line."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prunebench.records.jsonfile import write_bytes

ATTEMPTS = "attempts.jsonl"
#: parts of an attempt's environment on which the last bits of a result depend
DECIDING = ("torch", "platform", "device", "threads", "prunebench", "commit")


def begin(folder: Path, environment: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Records that this process starts to work on the run in `folder`.

    Returns:
        All attempts, this one last, each with ``started`` (ISO 8601), ``host`` and ``pid`` beside
        its environment.
    """
    attempt = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        **environment,
    }
    attempts = [*read_attempts(folder), attempt]
    lines = "".join(f"{json.dumps(each)}\n" for each in attempts)
    write_bytes(folder / ATTEMPTS, lines.encode())
    return attempts


def read_attempts(folder: Path) -> list[dict[str, Any]]:
    """Returns the attempts at the run in `folder`; empty if the file is missing or damaged."""
    try:
        lines = (folder / ATTEMPTS).read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines]
    except (OSError, ValueError):
        return []
    return [each for each in found if isinstance(each, dict)]


def changes(attempts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns what differs between the attempts, so that the result need not be bit-identical."""
    differences = []
    for key in DECIDING:
        values = list(dict.fromkeys(str(each.get(key)) for each in attempts))
        if len(values) > 1:
            differences.append(f"{key} {values[-1]}, before {', '.join(values[:-1])}")
    return differences
