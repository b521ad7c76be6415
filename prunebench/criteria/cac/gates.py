"""Draws the random gates of a step."""

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

    Each step's random numbers overwrite those of earlier steps at the same address, so that the
    operations that make gates of them can be recorded.

    Attributes:
        chances: [2, C]; per channel the probabilities that its gate is drawn from U(0, 1), or is 0.
        alive: bool [C]; gates of other channels are 0, and no estimate counts them.
    """

    def __init__(self, settings: CacSettings, sizes: Sequence[int], seed: int) -> None:
        """Prepares gates for groups of these `sizes`, on the CPU, with every channel alive."""
        self.scope, self.seed = settings.scope, seed
        wanted = torch.tensor([settings.p_uniform, settings.p_off])
        parts = []
        for size in sizes:
            perturbed = float(wanted.sum()) * size
            scale = 1 / perturbed if size < NARROW and perturbed > 1 else 1.0
            parts.append((wanted * scale)[:, None].expand(2, size))
        self.chances = torch.cat(parts, 1)
        self.alive = torch.ones(sum(sizes), dtype=torch.bool)
        self._numbers: dict[int, Tensor] = {}  # number of rows drawn -> their memory

    def to(self, device: torch.device) -> None:
        """Draws on `device` from now on."""
        self.chances, self.alive = self.chances.to(device), self.alive.to(device)

    def numbers(self, rows: int, what: str, *place: int) -> Tensor:
        """Returns random numbers [2, rows, C] for `rows` images; overwrites earlier ones.

        Args:
            rows: number of images.
            what: the purpose of the numbers, part of the seed.
            place: the place in the training, part of the seed.
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
        """Returns the gates that `numbers` [2, N, C] decide."""
        return gates_of(numbers, self.chances, self.alive)


def gates_of(numbers: Tensor, chances: Tensor, alive: Tensor) -> Draw:
    """Returns the gates that random numbers decide.

    Args:
        numbers: from U(0, 1) [2, N, C].
        chances: [2, C]; probabilities of U(0, 1) and of 0.
        alive: bool [C]; gates of other channels are 0, and no estimate counts them.
    """
    where, value = numbers.unbind()
    uniform = (where < chances[0]) & alive
    off = (where >= chances[0]) & (where < chances.sum(0)) & alive
    gates = torch.where(uniform, value, (~off).float()) * alive
    return Draw(gates, uniform, off)
