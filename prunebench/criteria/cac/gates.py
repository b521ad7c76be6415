"""How the gates of a step are drawn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prunebench.criteria.cac.estimators import Draw
from prunebench.criteria.cac.settings import CacSettings
from prunebench.reproducibility import seed_for

#: below this width the expected number of perturbed channels per image is capped at 1
NARROW = 16


class Gates:
    """Draws the gates of all channels of all groups, side by side.

    A step's random numbers lie where those of earlier steps lay: what makes gates of them can be
    recorded.

    Attributes:
        chances: probabilities of U(0, 1) and of 0 for every channel [2, C].
        alive: bool [C]; the gate of any other channel is 0 and counts for nothing.
    """

    def __init__(self, settings: CacSettings, sizes: Sequence[int], seed: int) -> None:
        """Prepares for groups of these `sizes`, on the CPU, with every channel alive."""
        self.scope, self.seed = settings.scope, seed
        wanted = torch.tensor([settings.p_uniform, settings.p_off])
        parts = []
        for size in sizes:
            perturbed = float(wanted.sum()) * size
            scale = 1 / perturbed if size < NARROW and perturbed > 1 else 1.0
            parts.append((wanted * scale)[:, None].expand(2, size))
        self.chances = torch.cat(parts, 1)
        self.alive = torch.ones(sum(sizes), dtype=torch.bool)
        self._numbers: dict[int, Tensor] = {}  # by the rows that are drawn

    def to(self, device: torch.device) -> None:
        """Draws on `device` from now on."""
        self.chances, self.alive = self.chances.to(device), self.alive.to(device)

    def numbers(self, rows: int, what: str, *place: int) -> Tensor:
        """Returns random numbers for `rows` images [2, rows, C]; those before are overwritten.

        Args:
            rows: number of images.
            what: they are for; part of the seed.
            place: in the training, likewise.
        """
        source = torch.Generator(self.alive.device)
        source.manual_seed(seed_for(self.seed, what, *place))
        drawn = 1 if self.scope == "batch" else rows
        shape = (2, drawn, self.alive.numel())
        if drawn not in self._numbers:
            self._numbers[drawn] = torch.empty(shape, device=self.alive.device)
        torch.rand(shape, generator=source, out=self._numbers[drawn])
        return self._numbers[drawn].expand(2, rows, -1)

    def draw(self, numbers: Tensor) -> Draw:
        """Returns the gates that `numbers` [2, N, C] come to."""
        return gates_of(numbers, self.chances, self.alive)


def gates_of(numbers: Tensor, chances: Tensor, alive: Tensor) -> Draw:
    """Returns the gates that random numbers come to.

    Args:
        numbers: from U(0, 1) [2, N, C].
        chances: probabilities of U(0, 1) and of 0 [2, C].
        alive: bool [C]; the gate of any other channel is 0 and counts for nothing.
    """
    where, value = numbers.unbind()
    uniform = (where < chances[0]) & alive
    off = (where >= chances[0]) & (where < chances.sum(0)) & alive
    gates = torch.where(uniform, value, (~off).float()) * alive
    return Draw(gates, uniform, off)
