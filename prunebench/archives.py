"""Checks how far a zip archive expands, before any memory is allocated for it."""

from __future__ import annotations

import zipfile
from typing import IO

#: an archive may expand to so many bytes, or to so many times its own size if that is more
MODEST, FOLD = 100_000_000, 100
#: largest number of members, each of which costs torch time; ResNet-1202 with all its state has
#: fewer
MANY = 20_000


def bomb_in(file: IO[bytes]) -> str:
    """Returns how far the archive expands if that is more than allowed; otherwise "".

    Args:
        file: positioned at its beginning, and left so; anything but an archive is allowed.
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
