"""The code that ``_target_`` names: how it is found, and which a file may name."""

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
    """Returns what `target`, the value of `key`, names: ``module.name``; the module is imported.

    Raises:
        ConfigError: there is none, or its module cannot be imported.
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
    """Returns the file that a class of somebody else's is defined in; None of one of prunebench."""
    module = kind.__module__
    path = getattr(sys.modules.get(module), "__file__", None)
    return Path(path) if path and module.partition(".")[0] != "prunebench" else None


def require_trusted(source: str, target: str) -> None:
    """Raises ConfigError unless the class `target` is one that the file `source` may name."""
    module = target.rpartition(".")[0]
    require(
        trusted(module),
        f"{source} names the class {target}; if you trust it, import {module} first or put "
        "its folder on PYTHONPATH",
    )


def trusted(module: str) -> bool:
    """Whether a file may name `module`, whose import runs its code.

    That is one of prunebench, one that is imported already, or one on PYTHONPATH.
    """
    top = module.partition(".")[0]
    if top == "prunebench" or module in sys.modules:
        return True
    own = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    return any(holds(Path(folder), top) for folder in own)


def holds(folder: Path, module: str) -> bool:
    """Whether `folder` has the module or package `module` right in it."""
    return any((folder / name).exists() for name in (module, f"{module}.py"))


def make_importable(target: str, folders: Sequence[Path]) -> None:
    """Puts the first of `folders` with the module of `target` on Python's path, unless one is.

    It comes last there, and only if needed, so that nothing in it takes another module's place.
    """
    top = target.partition(".")[0]
    if top and find_spec(top) is None:
        sys.path += [str(folder.resolve()) for folder in folders if holds(folder, top)][:1]
