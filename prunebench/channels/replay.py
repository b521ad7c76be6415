"""Replays labels through a slimmed network, to see whether every channel is where it should be."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunebench.channels.labels import Labeller, MisplacedError, Tape
from prunebench.channels.map import ChannelMap, as_array
from prunebench.channels.tracing import following, labelled_input
from prunebench.errors import PruningError

Kept = NDArray[np.bool_]


class Replay(Labeller):
    """Carries the labels of the dense network through the slim one and checks every meeting.

    New labels are handed out in the order of the dense forward, cut channels left out.
    """

    def __init__(self, slimmed: nn.Module, cmap: ChannelMap, kept: Kept) -> None:
        """Prepares the labels that are left."""
        super().__init__(slimmed, Tape(count=cmap.tape.count))
        self.cmap, self.kept = cmap, kept
        self.at = 0

    def left(self, ids: Tensor) -> Tensor:
        """Returns the ids in `ids` whose class is kept."""
        stays = self.kept[self.cmap.class_of[as_array(ids)]]
        return ids.reshape(-1)[torch.from_numpy(stays)]

    def new(self, count: int) -> Tensor:
        """Returns the next labels of the dense forward that are left."""
        if self.at >= len(self.cmap.tape.made):
            raise MisplacedError("the slimmed network makes more tensors than the dense one")
        ids = self.left(self.cmap.tape.made[self.at])
        self.at += 1
        if len(ids) != count:
            raise MisplacedError(f"{count} channels are made where {len(ids)} are left")
        return ids

    def tie(self, a: Tensor, b: Tensor) -> None:
        """Checks that channels that meet belong together."""
        if a is not b:
            classes = self.cmap.class_of
            if not np.array_equal(classes[as_array(a)], classes[as_array(b)]):
                raise MisplacedError("channels that do not belong together meet")

    def read(self, name: str, dim: int, ids: Tensor) -> None:
        """Checks that a weight meets the channels it was cut for."""
        known = self.cmap.tape.reads.get((name, dim))
        if known is None:
            raise MisplacedError(f"{name} is used in another way")
        self.tie(self.left(known), ids)

    def freeze(self, ids: Tensor, reason: str) -> None:
        """Does nothing: freezing was settled in the dense network."""


def misplaced(slimmed: nn.Module, cmap: ChannelMap, kept: Kept) -> str | None:
    """Returns what is wrong where channels are not in their place; None if all are."""
    replay = Replay(slimmed, cmap, kept)
    image = labelled_input(replay, cmap.tape.example)
    try:
        with following(replay, slimmed):
            slimmed(image)
    except (MisplacedError, PruningError, RuntimeError, ValueError, IndexError) as error:
        return f"{type(error).__name__} in {replay.stuck or 'the forward'}: {error}"
    return None
