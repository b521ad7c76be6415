"""The hidden folder in which a file lies until it has been compared; none outlives its export."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prunebench.locks import Timeout, locked

#: how the name of such a folder begins, and the file in it that is locked while somebody writes
PREFIX, LOCK = ".export-", "lock"


@contextmanager
def draft_folder(home: Path) -> Iterator[Path]:
    """Yields an empty folder in `home` that is removed in the end; those of killed exports, too."""
    _sweep(home)
    made = tempfile.TemporaryDirectory(dir=home, prefix=PREFIX)
    with made as name, locked(Path(name) / LOCK):
        yield Path(name)


def _sweep(home: Path) -> None:
    """Removes the folders in `home` that nobody writes to: a lock ends with its process."""
    for folder in home.glob(f"{PREFIX}*"):
        if (folder / LOCK).is_file():
            with suppress(Timeout, OSError), locked(folder / LOCK, timeout=0):
                shutil.rmtree(folder)
