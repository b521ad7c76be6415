"""Why a job of a sweep does nothing: it waits for another one, or was refused before it began."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from prunebench.records.jsonfile import write_bytes

#: in a run's folder, for as long as it waits: for whom, in one line
WAITING = ".waiting"
#: in a sweep's folder, of each job that has no folder of its own, for it was refused
REFUSED = ".refused-*.json"


@contextmanager
def waiting(folder: Path, whom: str) -> Iterator[Path]:
    """Says in the run's folder that it waits for `whom`; yields the file to touch now and then."""
    sign = folder / WAITING
    try:
        write_bytes(sign, whom.encode())
        yield sign
    finally:
        sign.unlink(missing_ok=True)


def whom_for(folder: Path) -> str:
    """Returns for whom the run in `folder` waits; "" where it does not."""
    try:
        return (folder / WAITING).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def refuse(sweep: Path, number: int, words: Sequence[str], why: str) -> None:
    """Writes down that a job of the sweep, typed as `words`, was refused, and why."""
    text = json.dumps({"words": list(words), "why": why})
    write_bytes(sweep / REFUSED.replace("*", str(number)), text.encode())


def refused(sweep: Path) -> dict[frozenset[str], str]:
    """Returns the words of each job that was refused -> why, in one line."""
    found = {}
    for path in sweep.glob(REFUSED):
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            found[frozenset(map(str, held["words"]))] = " ".join(str(held["why"]).split())
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return found
