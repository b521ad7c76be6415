"""Imports the class that ``_target_`` names, and says which classes a file may name."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prunebench.errors import ConfigError, require


def imported(key: str, target: str) -> Any:
    """Imports and returns ``module.name``, which `target`, the value of `key`, names.

    Raises:
        ConfigError: it does not exist, or its module cannot be imported.
    """
    module, _, name = target.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{key}: cannot find {target} ({error})") from error
    except Exception as error:
        kind = type(error).__name__
        raise ConfigError(f"{key}: cannot import {target} ({kind}: {error})") from error


def file_of(kind: type) -> Path | None:
    """Returns the file that defines a class; None for a class of prunebench, or without a file."""
    module = kind.__module__
    path = getattr(sys.modules.get(module), "__file__", None)
    return Path(path) if path and module.partition(".")[0] != "prunebench" else None


def require_trusted(source: str, target: str) -> None:
    """Raises ConfigError unless the file `source` may name the class `target`."""
    module = target.rpartition(".")[0]
    require(
        trusted(module),
        f"{source} names the class {target}; if you trust it, import {module} first or put "
        "its folder on PYTHONPATH",
    )


def trusted(module: str) -> bool:
    """Whether a file may name `module`, whose import runs its code.

    It may name a module of prunebench, one that is already imported, or one on PYTHONPATH.
    """
    top = module.partition(".")[0]
    if top == "prunebench" or module in sys.modules:
        return True
    own = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    return any(holds(Path(folder), top) for folder in own)


def holds(folder: Path, module: str) -> bool:
    """Whether `folder` directly contains the module or package `module`."""
    return any((folder / name).exists() for name in (module, f"{module}.py"))


def make_importable(target: str, folders: Sequence[Path]) -> None:
    """Adds the first of `folders` that has the module of `target` to Python's path, if needed.

    It is added last, so that nothing in it shadows another module.
    """
    top = target.partition(".")[0]
    if top and find_spec(top) is None:
        sys.path += [str(folder.resolve()) for folder in folders if holds(folder, top)][:1]
