"""Settings for the names that a pattern matches; ``*`` matches anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from prunebench.errors import PruningError

Setting = TypeVar("Setting")


def first_match(name: str, patterns: Mapping[str, Setting], otherwise: Setting) -> Setting:
    """Returns what the first of `patterns` that matches `name` sets, or `otherwise`."""
    matching = (value for pattern, value in patterns.items() if fnmatchcase(name, pattern))
    return next(matching, otherwise)


def require_matches(key: str, patterns: Iterable[str], names: Sequence[str]) -> None:
    """Refuses a pattern without effect.

    Raises:
        PruningError: one of `patterns`, which `key` holds, matches none of the groups `names`.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise PruningError(f"{key}: '{pattern}' matches no group; groups: {', '.join(names)}")
