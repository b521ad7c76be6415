"""Computes the training loss."""

from __future__ import annotations

import math

from torch import Tensor, where
from torch.nn import functional

from prunebench.recipes import Phase

#: least squared sine of an angle: the clamp stops the gradient, which is infinite at angle 0
_LEAST = 1e-6


def phase_loss(logits: Tensor, labels: Tensor, phase: Phase) -> Tensor:
    """Returns the mean loss of a batch, as `phase` defines it.

    Args:
        logits: [n, K]; cosines if the phase has a head with a margin.
        labels: int64 [n].
        phase: how the network is trained.
    """
    if phase.head not in (None, "softmax"):
        logits = with_margin(logits, labels, phase)
    return cross_entropy(logits, labels, smoothing=phase.label_smoothing)


def with_margin(cosines: Tensor, labels: Tensor, phase: Phase) -> Tensor:
    """Returns scaled logits [n, K] in float32 in which a margin lowers the label's own.

    With theta the angle to the label's weights, ``arcface`` takes cos(theta + m), or
    cos(theta) - m sin(m) where theta + m exceeds pi (Deng et al. 2019); ``cosface`` and
    ``am_softmax`` take cos(theta) - m (Wang et al. 2018, both). All gradients are finite.

    Args:
        cosines: [n, K], of the angles between embeddings and weights.
        labels: int64 [n].
        phase: which head, with its scale and margin.
    """
    scale, margin = phase.head_of
    cosines = cosines.float()
    own = cosines.gather(1, labels[:, None])
    if phase.head == "arcface":
        sine = (1 - own.square()).clamp(min=_LEAST).sqrt()
        further = own * math.cos(margin) - sine * math.sin(margin)
        beyond = own - margin * math.sin(margin)
        harder = where(own > math.cos(math.pi - margin), further, beyond)
    else:
        harder = own - margin
    return scale * cosines.scatter(1, labels[:, None], harder)


def cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float) -> Tensor:
    """Returns the mean cross-entropy of a batch, a float32 (or float64) scalar.

    With smoothing s over K classes the target is ``1 - s + s / K`` for the label and ``s / K``
    elsewhere (Szegedy et al., "Rethinking the Inception Architecture", 2016, section 7).

    Args:
        logits: [n, K]; bfloat16 logits are summed up in float32.
        labels: int64 [n].
        smoothing: s, in [0, 1).
    """
    exact = logits if logits.itemsize >= 4 else logits.float()
    return functional.cross_entropy(exact, labels, label_smoothing=smoothing)
