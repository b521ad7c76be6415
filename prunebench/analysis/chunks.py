"""How many images go through a network at once, by the memory that they take."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunebench.contracts import Evidence

#: bytes that the maps of a chunk may take: forwards alone, and where a backward follows
FORWARD = {"cpu": 1 << 29, "cuda": 1 << 31}
BACKWARD = {"cpu": 1 << 30, "cuda": 1 << 32}


def images_at_once(evidence: Evidence, most: int, *, backward: bool = False) -> int:
    """Returns how many images, at most `most`, go through the evidence's network at once.

    A layer reads its input, makes an output, and whoever looks on needs as much again; a backward
    needs the maps of all layers. That is four times what the layers read: the largest of them, or
    all.

    Args:
        evidence: its channel map knows how large the maps are.
        most: more are not asked for.
        backward: whether gradients are taken.
    """
    sizes = [4 * prod(call.place.shape) for call in evidence.cmap.tape.calls]
    need = 4 * (sum(sizes) if backward else max(sizes, default=0))
    limits = BACKWARD if backward else FORWARD
    weight = next(evidence.network.parameters(), None)
    limit = limits.get("cpu" if weight is None else weight.device.type, limits["cpu"])
    return max(1, min(most, limit // max(1, need)))
