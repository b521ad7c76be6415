"""Provides a hidden folder in which files lie until they are compared; it outlives no export."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prunebench.locks import Timeout, locked

#: beginning of such a folder's name, and the file in it that is locked while it is in use
PREFIX, LOCK = ".export-", "lock"


@contextmanager
def draft_folder(home: Path) -> Iterator[Path]:
    """Yields an empty folder in `home`, removed at the end; removes abandoned ones, too."""
    _sweep(home)
    made = tempfile.TemporaryDirectory(dir=home, prefix=PREFIX)
    with made as name, locked(Path(name) / LOCK):
        yield Path(name)


def _sweep(home: Path) -> None:
    """Removes the draft folders in `home` that are not in use: a lock ends with its process."""
    for folder in home.glob(f"{PREFIX}*"):
        if (folder / LOCK).is_file():
            with suppress(Timeout, OSError), locked(folder / LOCK, timeout=0):
                shutil.rmtree(folder)
