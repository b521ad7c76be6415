"""Name patterns in options: the setting that a pattern gives a group; ``*`` matches anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeVar, get_args

from prunebench.errors import PruningError, require

Setting = TypeVar("Setting")


def first_match(name: str, patterns: Mapping[str, Setting], otherwise: Setting) -> Setting:
    """Returns the setting of the first of `patterns` that matches `name`, or `otherwise`."""
    matching = (value for pattern, value in patterns.items() if fnmatchcase(name, pattern))
    return next(matching, otherwise)


def require_matches(key: str, patterns: Iterable[str], names: Sequence[str]) -> None:
    """Raises for a pattern that matches no group.

    Raises:
        PruningError: one of `patterns`, the value of `key`, matches none of the groups `names`.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise PruningError(f"{key}: '{pattern}' matches no group; groups: {', '.join(names)}")


def as_names(key: str, value: Any, hint: Any) -> Any:
    """Returns `value` with names that YAML has read as integers turned back into text.

    Args:
        key: key of the value, for messages.
        value: value of an option, as YAML or the command line has read it.
        hint: type of its field.

    Raises:
        ConfigError: a name was read as a float, which might have been 1.1 or 1.10.
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
