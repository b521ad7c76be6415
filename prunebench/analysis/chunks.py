"""Chooses how many images go through a network at once, by the memory that they take."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunebench.contracts import Evidence

#: bytes that the feature maps of a chunk may take, without and with a backward pass
FORWARD = {"cpu": 1 << 29, "cuda": 1 << 31}
BACKWARD = {"cpu": 1 << 30, "cuda": 1 << 32}


def images_at_once(evidence: Evidence, most: int, *, backward: bool = False) -> int:
    """Returns how many images, at most `most`, go through the evidence's network at once.

    Assumed are four times the input of a layer: input, output, and as much again for what the
    criterion does with them. It is the input of the largest layer, or with a backward pass, which
    keeps all maps, of all layers.

    Args:
        evidence: gives the network and, in the channel map, the sizes of its maps.
        most: largest number wanted.
        backward: whether a backward pass follows.
    """
    sizes = [4 * prod(call.place.shape) for call in evidence.cmap.tape.calls]
    need = 4 * (sum(sizes) if backward else max(sizes, default=0))
    limits = BACKWARD if backward else FORWARD
    weight = next(evidence.network.parameters(), None)
    limit = limits.get("cpu" if weight is None else weight.device.type, limits["cpu"])
    return max(1, min(most, limit // max(1, need)))
