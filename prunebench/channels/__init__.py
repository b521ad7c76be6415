"""Channels: which of them live and die together, and how they are taken out of a network."""

from prunebench.channels.gather import GatherChannels

__all__ = ["GatherChannels"]
