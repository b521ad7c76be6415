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
        means: names of what is averaged.
        reads_slope: whether the derivative by the gates is asked for.
        sums: for each of `means`, by name -> [C]: the sum over its samples (``x``), that of their
            squares (``xx``), their number (``n``), and the sum of the squares of the weights to
            which they have faded (``nn``).
        decay: what a step leaves of the weights of all before it.
    """

    means: tuple[str, ...]
    reads_slope = False

    def __init__(self, channels: int, decay: float, device: torch.device) -> None:
        """Begins with nothing."""
        exact = torch.float32 if device.type == "mps" else torch.float64
        self.sums = {
            f"{name} {kind}": torch.zeros(channels, dtype=exact, device=device)
            for name in self.means
            for kind in ("x", "xx", "n", "nn")
        }
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

    def errors(self) -> Tensor:
        """Returns the standard errors of the estimates [C], as of independent samples.

        Infinite where there are not two of them. Over all processes, each of which must ask.
        """
        sums, squared = self.over_all(), torch.zeros(())
        for name in self.means:
            x, xx, n, nn = (sums[f"{name} {kind}"] for kind in ("x", "xx", "n", "nn"))
            spread = (xx / n - (x / n) ** 2).clamp(min=0)
            # weights that fade are worth as many equal ones as their squares say; one fewer, since
            # the mean is of the same samples
            free = n**2 / nn - 1
            squared = squared + torch.where(free > 0, spread / free, torch.inf)
        return squared.sqrt()

    def over_all(self) -> dict[str, Tensor]:
        """Returns the sums over all processes."""
        return {name: distributed.total(value) for name, value in self.sums.items()}

    def _add(self, name: str, values: Tensor, which: Tensor) -> None:
        """Adds the samples of a step to a mean.

        Args:
            name: of the mean.
            values: [N, C] or [N, 1].
            which: [N, C], 1 where a sample counts and 0 elsewhere.
        """
        count, faded = which.sum(0), self.decay
        self.sums[f"{name} x"].mul_(faded).add_((values * which).sum(0))
        self.sums[f"{name} xx"].mul_(faded).add_((values.square() * which).sum(0))
        self.sums[f"{name} n"].mul_(faded).add_(count)
        self.sums[f"{name} nn"].mul_(faded**2).add_(count)


class OnOff(Estimator):
    """`acc_diff`: mean score of the images with the channel on minus that with it off.

    Attributes:
        kind: of score, ``acc``, ``soft`` or ``ce``.
    """

    means = ("on", "off")

    def __init__(self, channels: int, decay: float, device: torch.device, *, kind: str) -> None:
        """Begins with nothing."""
        super().__init__(channels, decay, device)
        self.kind = kind

    def add(self, draw: Draw, slope: Tensor, found: Outcome) -> None:
        """Adds a step; gates strictly between 0 and 1 count for neither side."""
        score = found.score(self.kind)[:, None]
        off = draw.off.float()
        self._add("on", score, 1 - off - draw.uniform.float())
        self._add("off", score, off)

    def scores(self) -> tuple[Tensor, Tensor]:
        """Returns the difference of the means, and the number of samples with the channel off."""
        s = self.over_all()
        return s["on x"] / s["on n"] - s["off x"] / s["off n"], s["off n"]


class GateGradient(Estimator):
    """`igg`: mean derivative of the score at gates drawn from U(0, 1).

    The derivative integrated over the gate is the difference itself, so one derivative at a
    uniform gate is an unbiased estimate of it, without a second forward.

    Attributes:
        soft: score by the true class's probability p (ds = -p dloss) instead of the loss.
    """

    means = ("slope",)
    reads_slope = True

    def __init__(self, channels: int, decay: float, device: torch.device, *, soft: bool) -> None:
        """Begins with nothing."""
        super().__init__(channels, decay, device)
        self.soft = soft

    def add(self, draw: Draw, slope: Tensor, found: Outcome) -> None:
        """Adds a step."""
        rise = -slope * found.score("soft")[:, None] if self.soft else -slope
        self._add("slope", rise, draw.uniform.float())

    def scores(self) -> tuple[Tensor, Tensor]:
        """Returns the mean derivative, and the number of uniform gates behind it."""
        s = self.over_all()
        return s["slope x"] / s["slope n"], s["slope n"]
