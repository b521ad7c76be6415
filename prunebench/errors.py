"""User mistakes as one clear line each; everything else keeps its traceback."""

import argparse
import re
from collections.abc import Iterable
from difflib import get_close_matches
from types import NoneType
from typing import Any, NoReturn, get_args, get_origin

#: type of a field -> one such value in words, several of them, and an example
WORDS: dict[type, tuple[str, str, object]] = {
    bool: ("true or false", "true or false", "true"),
    int: ("an integer", "integers", 3),
    float: ("a number", "numbers", 0.5),
    str: ("a text", "texts", "conv1"),
}
#: characters of a value that a message repeats
LONG = 200
#: in a name
NUMBER = re.compile(r"\d+")


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


class Parser(argparse.ArgumentParser):
    """Answers a mistake with one line."""

    def error(self, message: str) -> NoReturn:
        """Ends the program."""
        self.exit(2, f"{self.prog}: {message}\n")


def unknown(what: str, valid: Iterable[str]) -> str:
    """Says that `what` (``key=value`` or a dotted key) is not known, and what would be."""
    choices = sorted(valid)
    word = what.rsplit("=", 1)[-1].rsplit(".", 1)[-1]
    near = nearest(word, choices)
    hint = f"; did you mean '{near}'?" if near else ""
    return f"'{what}' is not known; valid: {', '.join(choices) or 'none'}{hint}"


def nearest(word: str, choices: Iterable[str]) -> str:
    """Returns which of `choices` was probably meant by `word`, whatever its case; "" if none.

    Of names that differ in their number alone, the one with the number nearest.
    """
    spelt = {choice.lower(): choice for choice in choices}
    near = get_close_matches(word.lower(), spelt, n=max(1, len(spelt)))
    numbers = NUMBER.findall(word)
    alike = [name for name in near if NUMBER.sub("#", name) == NUMBER.sub("#", word.lower())]
    if alike and numbers:
        return spelt[min(alike, key=lambda name: _distance(NUMBER.findall(name), numbers))]
    return spelt[near[0]] if near else ""


def _distance(some: Iterable[str], others: Iterable[str]) -> int:
    """Returns how far the numbers in two names are apart."""
    return sum(abs(int(a) - int(b)) for a, b in zip(some, others, strict=True))


def wrong_type(key: str, value: object, hint: Any) -> str:
    """Says that `value` is not of the type `hint`, and in which form `key` takes one."""
    inner = [kind for kind in get_args(hint) if kind is not NoneType]
    if NoneType in get_args(hint):
        return f"{wrong_type(key, value, inner[0])}; null is allowed too"
    got = "null" if value is None else repr(value)
    got = got if len(got) <= LONG else f"{got[:LONG]} ..."
    kind = inner[-1] if inner else hint
    one, several, example = WORDS.get(kind, (str(kind), str(kind), "..."))
    if type(value) is kind:  # only its brackets are missing
        example = value
    forms = {
        list: f"a list of {several}, such as {key}=[{example}]",
        dict: f"names with {several}, such as {key}={{conv1:{example}}}",
    }
    return f"{key} must be {forms.get(get_origin(hint) or hint, one)}; got {got}"


def first_line(error: BaseException) -> str:
    """Returns the first line of what an error says; the name of its class if it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def require(condition: bool, message: str) -> None:
    """Raises ConfigError with `message` unless `condition` holds."""
    if not condition:
        raise ConfigError(message)


def require_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raises ConfigError unless `value` is one of `choices`."""
    valid = list(choices)
    require(value in valid, f"{name} must be one of {', '.join(valid)}; got '{value}'")
