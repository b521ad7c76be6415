"""Two estimates of how a channel's being there changes the score, from gates drawn while training.

Both estimate CAC_c = E[s | gate c = 1] - E[s | gate c = 0], the other gates drawn as usual, where s
is the score of one image. They keep sums that fade by a factor per step. Our reconstruction from
the abstract of Chen et al., IEEE TNNLS 32(2), 2021, which gives no formulas.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from prunebench.training import distributed


@dataclass(frozen=True)
class Draw:
    """The gates of one step.

    Attributes:
        gates: float32 [N, C] factors in [0, 1].
        uniform: bool [N, C], where the gate was drawn from U(0, 1).
        off: bool [N, C], where it was set to 0.
    """

    gates: Tensor
    uniform: Tensor
    off: Tensor


@dataclass(frozen=True)
class Outcome:
    """What the network made of the images of one step.

    Attributes:
        loss: float32 [N], cross-entropy on the true labels.
        right: bool [N], whether the true class scored highest.
    """

    loss: Tensor
    right: Tensor

    def score(self, kind: str) -> Tensor:
        """Returns s [N]: ``acc`` 0 or 1, ``soft`` the true class's probability, ``ce`` -loss."""
        if kind == "acc":
            return self.right.float()
        return (-self.loss).exp() if kind == "soft" else -self.loss


def outcome(logits: Tensor, labels: Tensor) -> Outcome:
    """Returns what detached `logits` [N, classes] make of `labels` [N]."""
    loss = functional.cross_entropy(logits.float(), labels, reduction="none")
    return Outcome(loss, logits.argmax(1) == labels)


class Estimator(ABC):
    """Fading sums over the steps, one per channel.

    Attributes:
        sums: name -> [C].
        decay: what a step leaves of the sums of all before it.
    """

    names: tuple[str, ...]

    def __init__(self, channels: int, decay: float, device: torch.device) -> None:
        """Begins with nothing."""
        exact = torch.float32 if device.type == "mps" else torch.float64
        self.sums = {name: torch.zeros(channels, dtype=exact, device=device) for name in self.names}
        self.decay = decay

    @abstractmethod
    def add(self, draw: Draw, slope: Tensor, found: Outcome) -> None:
        """Adds a step.

        Args:
            draw: its gates.
            slope: [N, C], derivative of every image's own loss by its gates.
            found: what came of it.
        """

    @abstractmethod
    def scores(self) -> tuple[Tensor, Tensor]:
        """Returns the estimates and the (effective) number of samples behind each [C].

        Both are over all processes, each of which must ask.
        """

    def over_all(self) -> dict[str, Tensor]:
        """Returns the sums over all processes."""
        return {name: distributed.total(value) for name, value in self.sums.items()}

    def _fade(self, **values: Tensor) -> None:
        for name, value in values.items():
            self.sums[name].mul_(self.decay).add_(value)


class OnOff(Estimator):
    """`acc_diff`: mean score of the images with the channel on minus that with it off.

    Attributes:
        kind: of score, ``acc``, ``soft`` or ``ce``.
    """

    names = ("on_score", "on", "off_score", "off")

    def __init__(self, channels: int, decay: float, device: torch.device, *, kind: str) -> None:
        """Begins with nothing."""
        super().__init__(channels, decay, device)
        self.kind = kind

    def add(self, draw: Draw, slope: Tensor, found: Outcome) -> None:
        """Adds a step; gates strictly between 0 and 1 count for neither side."""
        score = found.score(self.kind)
        off = draw.off.float()
        on = 1 - off - draw.uniform.float()
        self._fade(on_score=score @ on, on=on.sum(0), off_score=score @ off, off=off.sum(0))

    def scores(self) -> tuple[Tensor, Tensor]:
        """Returns the difference of the means, and the number of samples with the channel off."""
        s = self.over_all()
        return s["on_score"] / s["on"] - s["off_score"] / s["off"], s["off"]


class GateGradient(Estimator):
    """`igg`: mean derivative of the score at gates drawn from U(0, 1).

    The derivative integrated over the gate is the difference itself, so one derivative at a
    uniform gate is an unbiased estimate of it, without a second forward.

    Attributes:
        soft: score by the true class's probability p (ds = -p dloss) instead of the loss.
    """

    names = ("slope", "drawn")

    def __init__(self, channels: int, decay: float, device: torch.device, *, soft: bool) -> None:
        """Begins with nothing."""
        super().__init__(channels, decay, device)
        self.soft = soft

    def add(self, draw: Draw, slope: Tensor, found: Outcome) -> None:
        """Adds a step."""
        rise = -slope * found.score("soft")[:, None] if self.soft else -slope
        drawn = draw.uniform.float()
        self._fade(slope=(rise * drawn).sum(0), drawn=drawn.sum(0))

    def scores(self) -> tuple[Tensor, Tensor]:
        """Returns the mean derivative, and the number of uniform gates behind it."""
        s = self.over_all()
        return s["slope"] / s["drawn"], s["drawn"]
