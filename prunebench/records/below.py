"""Finds the records in a folder of runs, also across links to other disks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def below(folder: Path, *names: str) -> list[Path]:
    """Returns the files below `folder` whose name is one of `names`, sorted."""
    return sorted(path for path in _files(folder) if path.name in names)


def _files(folder: Path) -> Iterator[Path]:
    """Yields all files; enters each folder once, by its own path rather than by a link to it."""
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        try:
            found = os.stat(place)
        except OSError:  # removed since os.walk listed it
            continue
        if (found.st_dev, found.st_ino) in seen:
            folders.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        folders.sort(key=lambda name: (os.path.islink(os.path.join(place, name)), name))
        yield from (Path(place, name) for name in names)
