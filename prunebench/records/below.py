"""Where records lie in a folder of runs, on other disks too that a link leads to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def below(folder: Path, *names: str) -> list[Path]:
    """Returns the files at and below `folder` that are called one of `names`, in order."""
    return sorted(path for path in _files(folder) if path.name in names)


def _files(folder: Path) -> Iterator[Path]:
    """Yields all files; a folder is entered once, by its own path rather than by a link to it."""
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        try:
            found = os.stat(place)
        except OSError:  # it was there a moment ago
            continue
        if (found.st_dev, found.st_ino) in seen:
            folders.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        folders.sort(key=lambda name: (os.path.islink(os.path.join(place, name)), name))
        yield from (Path(place, name) for name in names)
