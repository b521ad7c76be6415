"""Names as options hold them, and settings for those that a pattern matches; ``*`` matches all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeVar, get_args

from prunebench.errors import PruningError, require

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


def as_names(key: str, value: Any, hint: Any) -> Any:
    """Returns `value` with names that look like whole numbers, as of layers, as texts.

    Args:
        key: of the value, for messages.
        value: of an option, as YAML or the command line has read it.
        hint: the type of its field.

    Raises:
        ConfigError: a name was read as a number with a point, which 1.1 and 1.10 have in common.
    """
    if get_args(hint)[:1] != (str,) or not isinstance(value, list | dict):
        return value
    for entry in value:
        way = f"'{key}=[\"{entry}\"]'" if isinstance(value, list) else f"with a star, {entry}*"
        require(
            not isinstance(entry, float),
            f"{key}: {entry} was read as a number, and may have been another, such as {entry}0; "
            f"write the name {way}",
        )
    if isinstance(value, list):
        return value
    return {str(entry) if type(entry) is int else entry: each for entry, each in value.items()}
