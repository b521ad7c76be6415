"""Defines the errors that users can mend, each one clear line; others keep their traceback."""

import argparse
import re
from collections.abc import Iterable
from difflib import get_close_matches
from types import NoneType
from typing import Any, NoReturn, get_args, get_origin

#: type of a field -> words for one value and for several, and an example
WORDS: dict[type, tuple[str, str, object]] = {
    bool: ("true or false", "true or false", "true"),
    int: ("an integer", "integers", 3),
    float: ("a number", "numbers", 0.5),
    str: ("a text", "texts", "conv1"),
}
#: characters of a value that a message repeats
LONG = 200
#: a number in a name
NUMBER = re.compile(r"\d+")


class PrunebenchError(Exception):
    """Raised for a mistake the user can mend; the command line prints one line and exits with 2."""


class ConfigError(PrunebenchError):
    """Raised for an option, key, type or range that does not fit."""


class DataError(PrunebenchError):
    """Raised for data that are missing, truncated, corrupt or of the wrong shape."""


class CheckpointError(PrunebenchError):
    """Raised for a checkpoint that is missing, corrupt, or belongs to another network or run."""


class PruningError(PrunebenchError):
    """Raised for a pruning step that cannot be done on this network."""


class TrainingError(PrunebenchError):
    """Raised for a training that cannot go on, such as one whose loss is no longer finite."""


class Parser(argparse.ArgumentParser):
    """Parses arguments as argparse does, but reports a mistake in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Prints `message` and exits with 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def unknown(what: str, valid: Iterable[str]) -> str:
    """Returns a message that `what`, ``key=value`` or a dotted key, is unknown, with valid ones."""
    choices = sorted(valid)
    word = what.rsplit("=", 1)[-1].rsplit(".", 1)[-1]
    near = nearest(word, choices)
    hint = f"; did you mean '{near}'?" if near else ""
    return f"'{what}' is not known; valid: {', '.join(choices) or 'none'}{hint}"


def nearest(word: str, choices: Iterable[str]) -> str:
    """Returns the one of `choices` that `word` probably means, ignoring case; "" if none.

    Among names that differ only in their numbers, it is the one with the nearest number.
    """
    spelt = {choice.lower(): choice for choice in choices}
    near = get_close_matches(word.lower(), spelt, n=max(1, len(spelt)))
    numbers = NUMBER.findall(word)
    alike = [name for name in near if NUMBER.sub("#", name) == NUMBER.sub("#", word.lower())]
    if alike and numbers:
        return spelt[min(alike, key=lambda name: _distance(NUMBER.findall(name), numbers))]
    return spelt[near[0]] if near else ""


def _distance(some: Iterable[str], others: Iterable[str]) -> int:
    """Returns the sum of differences between the numbers of two names."""
    return sum(abs(int(a) - int(b)) for a, b in zip(some, others, strict=True))


def wrong_type(key: str, value: object, hint: Any) -> str:
    """Returns a message that `value` is not of type `hint`, and in which form `key` takes one."""
    inner = [kind for kind in get_args(hint) if kind is not NoneType]
    if NoneType in get_args(hint):
        return f"{wrong_type(key, value, inner[0])}; null is allowed too"
    got = "null" if value is None else repr(value)
    got = got if len(got) <= LONG else f"{got[:LONG]} ..."
    kind = inner[-1] if inner else hint
    one, several, example = WORDS.get(kind, (str(kind), str(kind), "..."))
    if type(value) is kind:  # only the brackets are missing: show them around the value
        example = value
    forms = {
        list: f"a list of {several}, such as {key}=[{example}]",
        dict: f"names with {several}, such as {key}={{conv1:{example}}}",
    }
    return f"{key} must be {forms.get(get_origin(hint) or hint, one)}; got {got}"


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text; the name of its class if there is no text."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def require(condition: bool, message: str) -> None:
    """Raises ConfigError with `message` unless `condition` holds."""
    if not condition:
        raise ConfigError(message)


def require_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raises ConfigError unless `value` is one of `choices`."""
    valid = list(choices)
    require(value in valid, f"{name} must be one of {', '.join(valid)}; got '{value}'")
