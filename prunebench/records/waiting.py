"""Records why a job of a sweep does nothing: it waits for another job, or was refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from prunebench.records.jsonfile import write_bytes

#: file in the folder of a run that waits; its one line says for whom
WAITING = ".waiting"
#: files in a sweep's folder, one for each job that was refused and so has no folder of its own
REFUSED = ".refused-*.json"


@contextmanager
def waiting(folder: Path, whom: str) -> Iterator[Path]:
    """Leaves a file in the run's folder that says it waits for `whom`; yields its path.

    The caller touches the file now and then as a sign of life.
    """
    sign = folder / WAITING
    try:
        write_bytes(sign, whom.encode())
        yield sign
    finally:
        sign.unlink(missing_ok=True)


def whom_for(folder: Path) -> str:
    """Returns for whom the run in `folder` waits; "" if it does not."""
    try:
        return (folder / WAITING).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def refuse(sweep: Path, number: int, words: Sequence[str], why: str) -> None:
    """Records that job `number` of the sweep, with the overrides `words`, was refused, and why."""
    text = json.dumps({"words": list(words), "why": why})
    write_bytes(sweep / REFUSED.replace("*", str(number)), text.encode())


def refused(sweep: Path) -> dict[frozenset[str], str]:
    """Returns the overrides of each refused job -> why it was refused, in one line."""
    found = {}
    for path in sweep.glob(REFUSED):
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            found[frozenset(map(str, held["words"]))] = " ".join(str(held["why"]).split())
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return found
