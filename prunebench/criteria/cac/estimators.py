"""Two estimates of a channel's effect on the score, from gates drawn at random in training.

Both estimate CAC_c = E[s | gate c = 1] - E[s | gate c = 0] over random other gates, where s is the
score of one image. They keep sums that decay by a factor per step. Our reconstruction from the
abstract of Chen et al., IEEE TNNLS 32(2), 2021, which gives no formulas.
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
        gates: float32 [N, C]; factors in [0, 1].
        uniform: bool [N, C]; where the gate was drawn from U(0, 1).
        off: bool [N, C]; where it was set to 0.
    """

    gates: Tensor
    uniform: Tensor
    off: Tensor


@dataclass(frozen=True)
class Outcome:
    """How the network answered the images of one step.

    Attributes:
        loss: float32 [N]; cross-entropy on the true labels.
        right: bool [N]; whether the true class scored highest.
    """

    loss: Tensor
    right: Tensor

    def score(self, kind: str) -> Tensor:
        """Returns s [N]: ``acc`` 0 or 1, ``soft`` the true class's probability, ``ce`` -loss."""
        if kind == "acc":
            return self.right.float()
        return (-self.loss).exp() if kind == "soft" else -self.loss


def outcome(logits: Tensor, labels: Tensor) -> Outcome:
    """Returns the outcome of detached `logits` [N, classes] for `labels` [N]."""
    loss = functional.cross_entropy(logits.float(), labels, reduction="none")
    return Outcome(loss, logits.argmax(1) == labels)


class Estimator(ABC):
    """Decaying sums over the steps, one per channel.

    Attributes:
        means: names of the means that are kept.
        reads_slope: whether it needs the derivative by the gates.
        sums: "<mean> <kind>" -> [C]; for each mean the weighted sum of its samples (``x``), of
            their squares (``xx``), of the weights (``n``), and of the squared weights (``nn``).
        decay: factor by which a step shrinks the weights of all earlier samples.
    """

    means: tuple[str, ...]
    reads_slope = False

    def __init__(self, channels: int, decay: float, device: torch.device) -> None:
        """Sets all sums to zero."""
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
            draw: the gates of the step.
            slope: [N, C]; derivative of every image's own loss by its gates.
            found: the outcome of the step.
        """

    @abstractmethod
    def scores(self) -> tuple[Tensor, Tensor]:
        """Returns the estimates [C] and the (effective) number of samples behind each [C].

        Both are over all processes, each of which must call it.
        """

    def errors(self) -> Tensor:
        """Returns the standard errors of the estimates [C], as if samples were independent.

        Infinite where there are fewer than two samples. Over all processes, each of which must call
        it.
        """
        sums, squared = self.over_all(), torch.zeros(())
        for name in self.means:
            x, xx, n, nn = (sums[f"{name} {kind}"] for kind in ("x", "xx", "n", "nn"))
            spread = (xx / n - (x / n) ** 2).clamp(min=0)
            # effective sample size of decayed weights, minus 1 as the mean is of the same samples
            free = n**2 / nn - 1
            squared = squared + torch.where(free > 0, spread / free, torch.inf)
        return squared.sqrt()

    def over_all(self) -> dict[str, Tensor]:
        """Returns the sums over all processes."""
        return {name: distributed.total(value) for name, value in self.sums.items()}

    def _add(self, name: str, values: Tensor, which: Tensor) -> None:
        """Adds the samples of a step to a mean.

        Args:
            name: name of the mean.
            values: samples, [N, C] or [N, 1].
            which: [N, C]; 1 where a sample counts and 0 elsewhere.
        """
        count, faded = which.sum(0), self.decay
        self.sums[f"{name} x"].mul_(faded).add_((values * which).sum(0))
        self.sums[f"{name} xx"].mul_(faded).add_((values.square() * which).sum(0))
        self.sums[f"{name} n"].mul_(faded).add_(count)
        self.sums[f"{name} nn"].mul_(faded**2).add_(count)


class OnOff(Estimator):
    """`acc_diff`: mean score of images with the channel on minus that of images with it off.

    Attributes:
        kind: which score, ``acc``, ``soft`` or ``ce``.
    """

    means = ("on", "off")

    def __init__(self, channels: int, decay: float, device: torch.device, *, kind: str) -> None:
        """Sets all sums to zero."""
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

    The integral of the derivative over the gate is the difference itself, so one derivative at a
    uniformly drawn gate is an unbiased estimate of it, without a second forward.

    Attributes:
        soft: whether the score is the true class's probability p (ds = -p dloss), not -loss.
    """

    means = ("slope",)
    reads_slope = True

    def __init__(self, channels: int, decay: float, device: torch.device, *, soft: bool) -> None:
        """Sets all sums to zero."""
        super().__init__(channels, decay, device)
        self.soft = soft

    def add(self, draw: Draw, slope: Tensor, found: Outcome) -> None:
        """Adds a step; only gates drawn from U(0, 1) count."""
        rise = -slope * found.score("soft")[:, None] if self.soft else -slope
        self._add("slope", rise, draw.uniform.float())

    def scores(self) -> tuple[Tensor, Tensor]:
        """Returns the mean derivative, and the number of uniform gates behind it."""
        s = self.over_all()
        return s["slope x"] / s["slope n"], s["slope n"]
