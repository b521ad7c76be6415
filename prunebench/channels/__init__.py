"""Channels: which must be cut together (`trace`), and how they are cut (`slim`).

README.md beside this file explains the idea and says where to look.
"""

from prunebench.channels.capture import capture, edit, look
from prunebench.channels.example import Example
from prunebench.channels.gather import GatherChannels, rewire, wiring_of
from prunebench.channels.map import ChannelGroup, ChannelMap, Site
from prunebench.channels.mode import in_mode, match_modes
from prunebench.channels.plan import Plan
from prunebench.channels.position_bias import add_position_bias, add_position_biases_as_in
from prunebench.channels.surgery.as_planned import require_as_planned
from prunebench.channels.surgery.mask import mask
from prunebench.channels.surgery.regroup import Shuffle, regroup
from prunebench.channels.surgery.slim import slim
from prunebench.channels.surgery.verify import Agreement, agreement, verify
from prunebench.channels.trace import trace

#: the former name of `add_position_bias`
place = add_position_bias

__all__ = [
    "Agreement",
    "ChannelGroup",
    "ChannelMap",
    "Example",
    "GatherChannels",
    "Plan",
    "Shuffle",
    "Site",
    "capture",
    "edit",
    "in_mode",
    "look",
    "mask",
    "add_position_bias",
    "agreement",
    "add_position_biases_as_in",
    "place",
    "slim",
    "match_modes",
    "regroup",
    "require_as_planned",
    "rewire",
    "trace",
    "verify",
    "wiring_of",
]
