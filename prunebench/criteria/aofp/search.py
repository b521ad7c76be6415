"""The binary search for channels that can go, for one layer; it needs no network.

Ding et al., ICML 2019. A *half* scores random draws, each of half the search set. The better half
of the set is then the candidate: it goes if its worst score is within a threshold, else it becomes
the next search set. A *move* is such halves in a row, until channels go or a single one still
hurts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Search:
    """The state of one layer's search.

    Attributes:
        alive: bool [C], channels that have not been pruned.
        space: int64, the search set, ascending.
        masks: bool [draws of a half, C]; row i holds what draw i dropped.
        damages: float32 [draws of a half] on the device; the damage of each draw, filled in place.
        draws: number of rows filled, those of the running step included.
        trying: channels under confirmation, least harmful first; None while scoring.
        gram: sum of Gram matrices over `draws` batches, for ``estimator=gram``.
        fails: number of moves in a row that ended without pruning.
        frozen: whether the layer is no longer searched.
        seconds: spent scoring since the half began, at steps that are not replayed.
    """

    alive: Tensor
    space: Tensor
    masks: Tensor
    damages: Tensor
    draws: int = 0
    trying: Tensor | None = None
    gram: Tensor | None = field(default=None, repr=False)
    fails: int = 0
    frozen: bool = False
    seconds: float = 0.0

    @classmethod
    def over(cls, channels: int, draws: int, device: torch.device) -> Search:
        """Returns a new search over all of `channels`, with room for `draws` per half."""
        return cls(
            alive=torch.ones(channels, dtype=torch.bool),
            space=torch.arange(channels),
            masks=torch.zeros(draws, channels, dtype=torch.bool),
            damages=torch.zeros(draws, device=device),
        )

    @property
    def width(self) -> int:
        """Number of channels that have not been pruned."""
        return int(self.alive.sum())

    @property
    def granularity(self) -> int:
        """Number of channels that a draw drops, and that a half picks as candidates."""
        return max(1, len(self.space) // 2)

    def pick(self, source: torch.Generator) -> Tensor:
        """Returns the channels that the next draw drops, ascending."""
        if self.trying is not None:
            return self.trying.sort().values
        order = torch.randperm(len(self.space), generator=source)
        return self.space.index_select(0, order[: self.granularity]).sort().values

    def note(self, row: int, dropped: Tensor) -> None:
        """Records which channels draw `row` of this half drops."""
        self.masks[row].zero_().index_fill_(0, dropped, True)

    def restart(self) -> None:
        """Begins a move over all channels that are left."""
        self.narrow(self.alive.nonzero()[:, 0])

    def narrow(self, space: Tensor) -> None:
        """Begins a half over `space`."""
        self.space, self.draws, self.trying, self.gram = space.sort().values, 0, None, None
        self.seconds = 0.0

    def confirm(self, chosen: Tensor) -> None:
        """Begins draws of exactly `chosen`, to confirm their damage."""
        self.draws, self.trying, self.seconds = 0, chosen, 0.0

    def remove(self, chosen: Tensor) -> None:
        """Prunes `chosen` and begins the next move."""
        self.alive[chosen] = False
        self.fails = 0
        self.restart()

    def state_dict(self) -> dict[str, Any]:
        """Returns the state, without rows that are not filled."""
        return {
            "alive": self.alive,
            "space": self.space,
            "masks": self.masks[: self.draws].clone(),
            "damages": self.damages[: self.draws].clone(),
            "trying": self.trying,
            "gram": self.gram,
            "draws": self.draws,
            "fails": self.fails,
            "frozen": self.frozen,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        device = self.damages.device
        self.alive.copy_(state["alive"])  # in place: the network's masks are made of this tensor
        self.space = state["space"].cpu().clone()
        self.draws, self.fails, self.frozen = state["draws"], state["fails"], state["frozen"]
        self.seconds = state["seconds"]
        self.trying = None if state["trying"] is None else state["trying"].cpu()
        self.gram = None if state["gram"] is None else state["gram"].to(device)
        rows = len(state["masks"])
        self.masks[:rows] = state["masks"].cpu()
        self.damages[:rows] = state["damages"].to(device)


def mean_damage(masks: Tensor, damages: Tensor) -> Tensor:
    """Returns the mean damage of the draws that dropped each channel [C]; inf if none did.

    Args:
        masks: bool [draws, C].
        damages: [draws].
    """
    dropped = masks.double()
    return (damages.double() @ dropped / dropped.sum(0)).nan_to_num(nan=torch.inf)


def ridge_damage(masks: Tensor, damages: Tensor, *, strength: float) -> Tensor:
    """Returns the damage that each dropped channel adds [C], by ridge regression on the draws.

    Args:
        masks: bool [draws, C].
        damages: [draws].
        strength: penalty, as a fraction of the mean diagonal of the centred masks' Gram matrix.
    """
    dropped, damage = masks.double(), damages.double()
    dropped, damage = dropped - dropped.mean(0), damage - damage.mean()
    products = dropped.T @ dropped
    products.diagonal().add_(strength * products.diagonal().mean() + 1e-12)
    slopes: Tensor = torch.linalg.solve(products, dropped.T @ damage)
    return slopes


def predicted(masks: Tensor, damages: Tensor, slopes: Tensor, chosen: Tensor) -> float:
    """Returns the damage that the regression predicts for dropping exactly `chosen`."""
    mask = torch.zeros(masks.shape[1], dtype=torch.float64)
    mask[chosen] = 1
    rise = (mask - masks.double().mean(0)) @ slopes
    return float(damages.double().mean() + rise)


def greedy(
    gram: Tensor, space: Tensor, most: int, harmless: Callable[[float], bool]
) -> tuple[Tensor, float]:
    """Returns the longest greedy sequence of channels whose joint damage is `harmless`.

    Args:
        gram: [C, C]; d' gram d is the damage of dropping the channels d.
        space: channels that may go.
        most: length of the longest sequence.
        harmless: whether a damage is small enough.

    Returns:
        The channels, first chosen first, and their joint damage.
    """
    left: list[int] = space.tolist()
    chosen: list[int] = []
    damage, with_chosen = 0.0, torch.zeros(len(gram), dtype=torch.float64)
    matrix = gram.double().cpu()
    while left and len(chosen) < most:
        rises = matrix.diagonal()[left] + 2 * with_chosen[left]
        best = int(rises.argmin())
        if not harmless(damage + float(rises[best])):
            break
        damage += float(rises[best])
        with_chosen += matrix[:, left[best]]
        chosen.append(left.pop(best))
    return torch.tensor(chosen, dtype=torch.int64), damage
