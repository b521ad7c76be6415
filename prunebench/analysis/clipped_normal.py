"""Moments and probabilities of a normal variable behind a ReLU, in closed form.

In eval mode the output of a batch norm has exactly mean beta and standard deviation s (see
`deviation`) on the data its statistics come from; that it is normal is an assumption.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def deviation(gamma: Tensor, running_var: Tensor, eps: float) -> Tensor:
    """Returns the standard deviation of a norm's output, |gamma| sqrt(var / (var + eps)).

    float64 [C]. The factor beside |gamma| matters behind dead channels, whose variance is not large
    beside `eps`.
    """
    variance = running_var.double()
    return gamma.double().abs() * (variance / (variance + eps)).sqrt()


#: standard deviation up to which an output counts as constant: the next norm, with its own epsilon
#: of 1e-5, gives it a variance of 0.09 at most
STILL = 1e-3


def still(gamma: Tensor, running_var: Tensor, eps: float) -> Tensor:
    """Returns which output channels of a norm are constant, whatever its input, bool [C]."""
    return deviation(gamma, running_var, eps) <= STILL


def z_score(gamma: Tensor, beta: Tensor, running_var: Tensor, eps: float) -> Tensor:
    """Returns z = -beta / s: how many standard deviations a norm's mean output is below zero.

    The output is at most zero with probability Phi(z). Rank by z, never by that probability, which
    rounds to 1 from z = 8.3 on.

    Args:
        gamma: scale of a batch norm [C].
        beta: its shift [C].
        running_var: its running variance [C].
        eps: its epsilon.

    Returns:
        float64 [C]; where the deviation is 0, +inf for beta <= 0 and -inf for beta > 0.
    """
    import torch

    spread, shift = deviation(gamma, running_var, eps), beta.double()
    sure = torch.where(shift <= 0, torch.inf, -torch.inf)
    return torch.where(spread > 0, -shift / spread, sure)


def relu_moments(mean: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Returns E[ReLU(X)] and E[ReLU(X)^2] of normal X, float64.

    Args:
        mean: mean of X.
        spread: standard deviation of X, of the same shape; may be 0.
    """
    import torch

    mean, spread = mean.double(), spread.double()
    ratio = torch.where(spread > 0, mean / spread, torch.inf * mean.sign())
    above = torch.special.ndtr(ratio)  # the probability that X > 0
    density = torch.exp(-0.5 * ratio.square()) / math.sqrt(2 * math.pi)
    first = torch.where(spread > 0, mean * above + spread * density, mean.clamp(min=0))
    whole = (mean.square() + spread.square()) * above + mean * spread * density
    second = torch.where(spread > 0, whole, mean.clamp(min=0).square())
    return first, second


def clipped_moments(mean: Tensor, spread: Tensor, ceiling: float) -> tuple[Tensor, Tensor]:
    """Returns E[Y] and E[Y^2] of Y = min(max(X, 0), ceiling) for normal X, float64.

    With R = ReLU(X) and T = ReLU(X - ceiling), Y = R - T, and R T = T (T + ceiling).

    Args:
        mean: mean of X.
        spread: standard deviation of X, of the same shape; may be 0.
        ceiling: 6 for ReLU6; inf for ReLU.
    """
    first, second = relu_moments(mean, spread)
    if math.isinf(ceiling):
        return first, second
    over, over_square = relu_moments(mean.double() - ceiling, spread)
    return first - over, second - over_square - 2 * ceiling * over
