"""The task of a network: how it runs on images, and its loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunebench.errors import PruningError, first_line

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Task:
    """How a network runs on images, and how its loss is computed.

    Attributes:
        forward: takes the network and its inputs and returns its outputs; None calls the network
            on them, as `trace` does with an example.
        loss: takes outputs and targets and returns their mean loss; None is the cross-entropy of
            logits and labels.
    """

    forward: Callable[[nn.Module, Any], Any] | None = None
    loss: Callable[[Any, Any], Tensor] | None = None

    def run(self, network: nn.Module, inputs: Any) -> Any:
        """Returns the outputs of `network` for `inputs`."""
        from prunebench.channels.example import run_on

        return (self.forward or run_on)(network, inputs)

    def mean_loss(self, outputs: Any, targets: Any) -> Tensor:
        """Returns the mean loss of a batch.

        Raises:
            PruningError: outputs and targets have no cross-entropy, or `loss` returns no scalar.
        """
        if self.loss is None:
            return _cross_entropy(outputs, targets, "mean")
        found = self.loss(outputs, targets)
        if getattr(found, "shape", None) != ():
            got = list(found.shape) if hasattr(found, "shape") else type(found).__name__
            raise PruningError(f"loss must return the mean of a batch, a tensor []; got {got}")
        return found

    def summed_loss(self, outputs: Any, targets: Any, images: int) -> Tensor:
        """Returns the loss of a batch of `images` images, summed over them.

        Raises:
            PruningError: as `mean_loss`.
        """
        if self.loss is None:
            return _cross_entropy(outputs, targets, "sum")
        return self.mean_loss(outputs, targets) * images


def _cross_entropy(outputs: Any, targets: Any, reduction: str) -> Tensor:
    """Returns the cross-entropy of logits and labels.

    Raises:
        PruningError: they are no logits and labels, or do not fit each other.
    """
    from torch.nn.functional import cross_entropy

    from prunebench.channels.example import described

    try:
        return cross_entropy(outputs, targets, reduction=reduction)
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        why = first_line(error)
        raise PruningError(
            f"the outputs ({type(outputs).__name__} of {described(outputs)}) and the targets "
            f"({described(targets)}) have no cross-entropy ({why}); give logits and int64 labels, "
            "or in Python, prune(..., loss=function of outputs and targets)"
        ) from error
