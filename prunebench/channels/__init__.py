"""Channels: which of them live and die together, and how they are taken out of a network."""

from prunebench.channels.gather import GatherChannels
from prunebench.channels.map import ChannelGroup, ChannelMap, Site
from prunebench.channels.masking import mask, verify
from prunebench.channels.placed import place, place_as_in
from prunebench.channels.plan import Plan
from prunebench.channels.probe import capture, edit
from prunebench.channels.surgery import slim
from prunebench.channels.tracing import trace

__all__ = [
    "ChannelGroup",
    "ChannelMap",
    "GatherChannels",
    "Plan",
    "Site",
    "capture",
    "edit",
    "mask",
    "place",
    "place_as_in",
    "slim",
    "trace",
    "verify",
]
