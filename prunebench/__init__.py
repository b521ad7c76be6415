"""Structured pruning of CNNs: run, compare, trust."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from prunebench.api import prune as prune
    from prunebench.api.files import load as load
    from prunebench.api.files import save as save
    from prunebench.api.result import PruningReport as PruningReport
    from prunebench.api.result import Slim as Slim

#: what is imported from where, and torch with it, only when it is asked for
_HOMES = {
    "prune": "prunebench.api",
    "save": "prunebench.api.files",
    "load": "prunebench.api.files",
    "Slim": "prunebench.api.result",
    "PruningReport": "prunebench.api.result",
}
#: rooms whose names a user needs
_ROOMS = ("budgets", "channels", "criteria", "repairs")

__all__ = ["PruningReport", "Slim", "__version__", "load", "prune", "save"]


def __getattr__(name: str) -> Any:
    """Imports what is asked for."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _ROOMS:
        return import_module(f"prunebench.{name}")
    raise AttributeError(f"module 'prunebench' has no attribute '{name}'")


def __dir__() -> list[str]:
    """Returns the names that there are, imported already or not."""
    return sorted({*globals(), *_HOMES, *_ROOMS})
