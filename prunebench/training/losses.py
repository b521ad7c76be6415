"""The training loss."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


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
