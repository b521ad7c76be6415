"""Rechecks a slimmed network: is every channel where the dense one has it?"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunebench.channels.example import run_on
from prunebench.channels.labels.forward import following, labelled_input
from prunebench.channels.labels.labeller import Labeller
from prunebench.channels.labels.rules import RULES
from prunebench.channels.labels.tape import Tape
from prunebench.channels.labels.tensors import labels_of, tensors_in
from prunebench.channels.map import ChannelMap, as_array
from prunebench.errors import PruningError

Kept = NDArray[np.bool_]


class MisplacedError(Exception):
    """A channel of the slimmed network is not where the dense one has it."""


class StuckError(PruningError):
    """Channels are moved in a way that cannot follow a cut.

    Attributes:
        where, why: the module or function, and what went wrong there.
        groups: names of the groups that would have to stay whole.
    """

    def __init__(self, where: str, why: str, groups: Iterable[str]) -> None:
        """Says what would help."""
        self.where, self.why = where, why
        self.groups = sorted(set(groups))
        super().__init__(
            f"{where} moves channels in a way that cannot follow the cut ({why}); "
            f"leave these groups whole: {', '.join(self.groups) or 'unknown'}"
        )


class Recheck:
    """The label ids of a slimmed network, checked against the tape of the dense one.

    Ids are handed out in the order of the dense forward, cut channels left out, so that the labels
    of both networks can be compared one by one wherever channels meet.

    Attributes:
        cmap, kept: channel map of the dense network, and which of its classes are left.
        made, tied: how many of the dense forward's label vectors and ties were passed.
    """

    def __init__(self, cmap: ChannelMap, kept: Kept) -> None:
        """Begins at the start of the tape."""
        self.cmap, self.kept = cmap, kept
        self.made = self.tied = 0
        self._reads: dict[tuple[str, int], Tensor] = {}

    def left(self, ids: Tensor) -> Tensor:
        """Returns the ids in `ids` (any shape, flattened) whose class is kept."""
        stays = self.kept[self.cmap.class_of[as_array(ids)]]
        return ids.reshape(-1)[torch.from_numpy(stays)]

    def groups(self, tensors: Iterable[Tensor]) -> set[str]:
        """Returns the names of the groups whose channels `tensors` hold."""
        found: set[str] = set()
        for t in tensors:
            numbers = self.cmap.locate[0, self.cmap.class_of[as_array(labels_of(t) >> 1)]]
            found.update(self.cmap.groups[n].name for n in np.unique(numbers) if n >= 0)
        return found

    def new(self, count: int) -> Tensor:
        """Returns the next labels of the dense forward that are left."""
        if self.made >= len(self.cmap.tape.made):
            raise MisplacedError("more tensors are made than in the dense network")
        ids = self.left(self.cmap.tape.made[self.made])
        self.made += 1
        if len(ids) != count:
            raise MisplacedError(f"{count} channels are made where {len(ids)} are left")
        return ids

    def tie(self, a: Tensor, b: Tensor) -> None:
        """Checks that the channels that meet are those that met in the dense network."""
        if a is b:
            return
        if self.tied >= len(self.cmap.tape.ties):
            raise MisplacedError("more tensors meet than in the dense network")
        want = self.cmap.tape.ties[self.tied]
        self.tied += 1
        if not torch.equal(self.left(want[0]), a.reshape(-1)):
            raise MisplacedError("channels that do not belong together meet")
        if not torch.equal(self.left(want[1]), b.reshape(-1)):
            raise MisplacedError("channels that do not belong together meet")

    def read(self, name: str, dim: int, ids: Tensor) -> None:
        """Checks that a weight meets the channels it was cut for."""
        want = self.cmap.tape.reads.get((name, dim))
        first = (name, dim) not in self._reads
        if want is None or (first and not torch.equal(self.left(want), ids)):
            raise MisplacedError(f"{name} meets other channels")
        self.tie(self._reads.setdefault((name, dim), ids), ids)

    def freeze(self, ids: Tensor, reason: str) -> None:
        """Does nothing: what is frozen was found in the dense network."""


def misplaced(slimmed: nn.Module, cmap: ChannelMap, kept: Kept) -> StuckError | None:
    """Returns what is wrong if channels are not in their place; None if all are."""
    recheck = Recheck(cmap, kept)
    labeller = Labeller(slimmed, Tape(), RULES, recheck)
    image = labelled_input(labeller, cmap.tape.example)
    try:
        with following(labeller, slimmed):
            run_on(slimmed, image)
    except (MisplacedError, PruningError, RuntimeError, ValueError, IndexError) as error:
        touched = recheck.groups(tensors_in(labeller.stuck_args))
        return StuckError(labeller.stuck or "the forward", str(error).split("\n")[0], touched)
    return None
