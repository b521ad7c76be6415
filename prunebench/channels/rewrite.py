"""Inserts gathers where the code of a network moves channels by fixed numbers."""

from __future__ import annotations

from torch import nn

from prunebench.channels.map import ChannelMap
from prunebench.channels.plan import Plan
from prunebench.errors import PruningError


def insert_gathers(
    model: nn.Module, slimmed: nn.Module, cmap: ChannelMap, plan: Plan, reason: str
) -> nn.Module:
    """Not done yet."""
    raise PruningError(f"channels are moved in a way that cannot follow the cut: {reason}")
