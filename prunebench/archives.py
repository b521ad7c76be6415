"""Zip archives of strangers: what they unfold to is asked before any memory is taken for it."""

from __future__ import annotations

import zipfile
from typing import IO

#: an archive may unfold to so many bytes whatever its own size, and to so many times that size
MODEST, FOLD = 100_000_000, 100
#: members of an archive, for each of which torch takes its time; ResNet-1202 with all of its state
#: has fewer
MANY = 20_000


def bomb_in(file: IO[bytes]) -> str:
    """Says how far the archive unfolds where that is beyond all reason; "" where it is not.

    Args:
        file: at its beginning, where it is left; what is no archive unfolds to nothing.
    """
    size = file.seek(0, 2)
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError):
        return ""
    finally:
        file.seek(0)
    if len(members) > MANY:
        return f"unpacks to {len(members):,} members"
    unfolded = sum(member.file_size for member in members)
    if unfolded <= max(MODEST, FOLD * size):
        return ""
    return f"unpacks from {size / 1e6:,.1f} MB to {unfolded / 1e6:,.0f} MB"
