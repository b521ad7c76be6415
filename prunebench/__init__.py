"""Structured pruning of CNNs: run, compare, trust."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from prunebench.api import prune as prune
    from prunebench.checkpoints.slimmed import load as load


def __getattr__(name: str) -> Any:
    """Imports `prune` and `load`, and torch with them, only when they are asked for."""
    if name == "prune":
        from prunebench.api import prune

        return prune
    if name == "load":
        from prunebench.checkpoints.slimmed import load

        return load
    raise AttributeError(f"module 'prunebench' has no attribute '{name}'")
