"""Prunes channels of CNNs: runs experiments, and compares and verifies their results.

`prune`, `save` and `load` are the Python API, in `prunebench.api`; the command ``prunebench`` is
`prunebench.cli`. A run is checked by `config`, carried out by `run` and recorded by `records`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from prunebench.api import prune as prune
    from prunebench.api.files import load as load
    from prunebench.api.files import save as save
    from prunebench.api.result import PruningReport as PruningReport
    from prunebench.api.result import Slim as Slim

#: name -> module that it is imported from on first access, since that imports torch
_HOMES = {
    "prune": "prunebench.api",
    "save": "prunebench.api.files",
    "load": "prunebench.api.files",
    "Slim": "prunebench.api.result",
    "PruningReport": "prunebench.api.result",
}
#: subpackages that are imported on first access
_ROOMS = ("budgets", "channels", "criteria", "repairs")

__all__ = ["PruningReport", "Slim", "__version__", "load", "prune", "save"]


def __getattr__(name: str) -> Any:
    """Imports `name` on first access."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _ROOMS:
        return import_module(f"prunebench.{name}")
    raise AttributeError(f"module 'prunebench' has no attribute '{name}'")


def __dir__() -> list[str]:
    """Returns all public names, whether imported already or not."""
    return sorted({*globals(), *_HOMES, *_ROOMS})
