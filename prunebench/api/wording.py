"""Rewords messages of the command line as arguments of `prune`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prunebench.api.choices import SHORT
from prunebench.errors import PrunebenchError
from prunebench.options.files import conf_dir, read_option


@contextmanager
def in_python(criterion: object, repair: object, keys: Mapping[str, Any]) -> Iterator[None]:
    """Rewords the errors raised inside the block, so that they name arguments of `prune`.

    Args:
        criterion: the argument of this name.
        repair: likewise.
        keys: of the budget.
    """
    try:
        yield
    except PrunebenchError as error:
        classes = {"criterion": criterion, "repair": repair}
        short = next((name for name in SHORT if name in keys), "keep")
        error.args = (reworded(str(error), classes, short), *error.args[1:])
        raise


def reworded(message: str, asked: Mapping[str, object], short: str) -> str:
    """Returns a message of the command line, reworded for Python.

    Args:
        message: one sentence.
        asked: group -> the option that the user named or made.
        short: the argument that stands for ``budget.keep``.
    """
    text = message.replace(' (in Python, scope="all")', "").replace("or in Python, ", "or ")
    text = re.sub(r"schedule=oneshot( or (layerwise|iterative))?", "steps=1", text)
    text = text.replace("schedule=iterative", "steps=2 or more")
    text = re.sub(r"budget\.keep\b", short, text)
    text = re.sub(r"budget\.(\w+)=\[([^\]']*)\]", _quoted_list, text)
    text = re.sub(r"budget\.(\w+)=([a-z]\w*)", r'\1="\2"', text)
    text = re.sub(r"budget\.(\w+)", r"\1", text)
    for group, option in asked.items():
        made = class_name(group, option)
        text = re.sub(rf"{group}\.(\w+)=([a-z]\w*)", rf'{group}={made}(\1="\2")', text)
        text = re.sub(rf"{group}\.(\w+)=(\S*\w)", rf"{group}={made}(\1=\2)", text)
    return re.sub(r"\b(criterion|budget|repair|allocation)=([a-z]\w*)", r'\1="\2"', text)


def _quoted_list(found: re.Match[str]) -> str:
    """Returns ``exclude=["a", "b"]`` for ``budget.exclude=[a,b]``."""
    names = [name.strip() for name in found[2].split(",") if name.strip()]
    quoted = ", ".join(f'"{name}"' for name in names)
    return f"{found[1]}=[{quoted}]"


def class_name(group: str, option: object) -> str:
    """Returns the name of the class of an option, given by name or as an object."""
    path = conf_dir() / group / f"{option}.yaml"
    if not isinstance(option, str) or not path.is_file():
        return type(option).__name__
    return str(read_option(path)["_target_"]).rpartition(".")[2]
