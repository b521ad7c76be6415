"""Filters that are zero, and stay so while what is left of the network is fine-tuned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunebench.contracts import Moment, RepeatingObserver

if TYPE_CHECKING:
    from torch import Tensor, nn, optim


class ZerosStay(RepeatingObserver):
    """Takes the gradients of all weights away that are exactly zero when a training begins.

    A batch norm behind a zeroed filter divides by next to nothing: the smallest step away from zero
    comes out of it as a channel of full size that nobody has trained, and all layers that read the
    residual stream get to see it. Published soft pruning counts those filters as gone.
    """

    def start(self, network: nn.Module, optimizer: optim.Optimizer) -> None:
        """Looks for weights that are zero; biases and norms are none."""
        self.zeros: list[tuple[nn.Parameter, Tensor]] = []
        for parameter in network.parameters():
            zero = parameter.detach() == 0
            if parameter.dim() > 1 and bool(zero.any()):
                self.zeros.append((parameter, zero))

    def after_backward(self, moment: Moment) -> None:
        """Takes their gradients away: without one, neither decay nor momentum moves a zero."""
        for parameter, zero in self.zeros:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(zero, 0)

    def repeats(self, epoch: int, step: int, steps: int) -> bool:
        """Returns the same at every step."""
        return True
