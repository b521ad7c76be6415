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

    def to(self, device: torch.device) -> None:
        """Draws on `device` from now on."""
        self.chances, self.alive = self.chances.to(device), self.alive.to(device)

    def draw(self, rows: int, what: str, *place: int) -> Draw:
        """Returns the gates for `rows` images.

        Args:
            rows: number of images.
            what: they are for; part of the seed.
            place: in the training, likewise.
        """
        source = torch.Generator(self.alive.device)
        source.manual_seed(seed_for(self.seed, what, *place))
        drawn = draw_gates(self.chances, self.alive, 1 if self.scope == "batch" else rows, source)
        if len(drawn.gates) == rows:
            return drawn
        wide = (rows, -1)
        return Draw(*(part.expand(wide) for part in (drawn.gates, drawn.uniform, drawn.off)))


def draw_gates(chances: Tensor, alive: Tensor, rows: int, source: torch.Generator) -> Draw:
    """Returns gates for `rows` images.

    Args:
        chances: probabilities of U(0, 1) and of 0 [2, C].
        alive: bool [C]; the gate of any other channel is 0 and counts for nothing.
        rows: number of images.
        source: generator, on the device of the others.
    """
    where, value = torch.rand(
        2, rows, alive.numel(), generator=source, device=alive.device
    ).unbind()
    uniform = (where < chances[0]) & alive
    off = (where >= chances[0]) & (where < chances.sum(0)) & alive
    gates = torch.where(uniform, value, (~off).float()) * alive
    return Draw(gates, uniform, off)
