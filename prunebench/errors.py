"""User mistakes as one clear line each; everything else keeps its traceback."""

from collections.abc import Iterable
from difflib import get_close_matches


class PrunebenchError(Exception):
    """A mistake the user can mend; the command line prints it as one line and exits with 2."""


class ConfigError(PrunebenchError):
    """An option, key, type or range that does not fit."""


class DataError(PrunebenchError):
    """Data that is missing, truncated, corrupt or of the wrong shape."""


class CheckpointError(PrunebenchError):
    """A checkpoint that is missing, corrupt, or belongs to another network or run."""


class PruningError(PrunebenchError):
    """A pruning step that cannot be done on this network."""


class TrainingError(PrunebenchError):
    """A training run that cannot go on, such as a loss that is no longer finite."""


def unknown(what: str, valid: Iterable[str]) -> str:
    """Says that `what` (``key=value`` or a dotted key) is not known, and what would be."""
    choices = sorted(valid)
    word = what.rsplit("=", 1)[-1].rsplit(".", 1)[-1]
    near = get_close_matches(word, choices, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"'{what}' is not known; valid: {', '.join(choices) or 'none'}{hint}"


def require(condition: bool, message: str) -> None:
    """Raises ConfigError with `message` unless `condition` holds."""
    if not condition:
        raise ConfigError(message)


def require_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raises ConfigError unless `value` is one of `choices`."""
    valid = list(choices)
    require(value in valid, f"{name} must be one of {', '.join(valid)}; got '{value}'")
