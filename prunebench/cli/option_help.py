"""Implements ``prunebench criterion=foad --help``: an option as its own YAML describes it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from prunebench.errors import ConfigError, unknown
from prunebench.options.files import (
    choices_of,
    find_option,
    option_groups,
    option_names,
    read_option,
)


def option_help(words: Sequence[str], folders: Sequence[Path]) -> str:
    """Returns the help on all groups and options that `words` name; "" if they name none.

    Args:
        words: such as ``criterion`` (lists its options) or ``criterion=foad``.
        folders: of options.

    Raises:
        ConfigError: there is no such group or option.
    """
    pages = []
    for word in words:
        key, _, names = word.lstrip("+").partition("=")
        group = key.partition("@")[0]
        if "." in group:  # the page of the option explains its keys
            continue
        groups = option_groups(folders)
        if group not in groups:
            raise ConfigError(unknown(group, groups))
        if names:
            pages += [_page(group, name, folders) for name in names.split(",")]
        else:
            pages.append(_index(group, folders))
    return "\n\n".join(pages)


def _page(group: str, name: str, folders: Sequence[Path]) -> str:
    """Returns one option's YAML with its comments, and which options it chooses."""
    path = find_option(group, name, folders)
    if path is None:
        raise ConfigError(unknown(f"{group}={name}", option_names(group, folders)))
    lines = [f"{group}={name}   ({path})", "", *_lines(path)]
    further = list(dict.fromkeys(_chosen(group, path)))
    if further:
        lines += ["", f"Options it presets (add --help to read them): {' '.join(further)}"]
    return "\n".join(lines)


def _chosen(group: str, path: Path) -> Iterator[str]:
    """Yields ``group=option`` for every option that a YAML chooses."""
    for key, name in choices_of(read_option(path)).items():
        base, at, _ = key.partition("@")
        yield f"{group}/{base}={name}" if at else f"{base}={name}"


def _index(group: str, folders: Sequence[Path]) -> str:
    """Returns one line for each option of `group`: its name and first sentence."""
    names = option_names(group, folders)
    width = max(map(len, names))
    lines = [f"Options of {group} (prunebench {group}=NAME --help says more):", ""]
    for name in names:
        path = find_option(group, name, folders)
        assert path is not None
        lines.append(f"  {name:{width}}  {_first_sentence(path)}")
    return "\n".join(lines)


def _first_sentence(path: Path) -> str:
    """Returns the first sentence of the comment at the head of a YAML."""
    head = []
    for line in _lines(path):
        if not line.startswith("#"):
            break
        head.append(line.lstrip("# "))
    # the points of "et al." and of "J." end no sentence
    ends = r"(?<!\bal\.)(?<!\b[A-Z]\.)(?<=[^.][.;?])\s"
    return re.split(ends, " ".join(head), maxsplit=1)[0].rstrip(";")


def _lines(path: Path) -> list[str]:
    """Returns the lines of a YAML without Hydra's own directives."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("# @package")]
