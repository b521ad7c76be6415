"""Keeps zeroed filters at zero while the slim network is fine-tuned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunebench.contracts import Moment, RepeatingObserver

if TYPE_CHECKING:
    from torch import Tensor, nn, optim


class ZerosStay(RepeatingObserver):
    """Zeroes the gradients of all weights that are exactly zero when training begins.

    A batch norm behind a zeroed filter divides by almost nothing: after the smallest step away from
    zero it puts out a full-sized, untrained channel, which all layers behind the residual stream
    read. Published soft pruning counts those filters as removed.
    """

    def start(self, network: nn.Module, optimizer: optim.Optimizer) -> None:
        """Finds the zeros in weights; biases and norms are skipped."""
        self.zeros: list[tuple[nn.Parameter, Tensor]] = []
        for parameter in network.parameters():
            zero = parameter.detach() == 0
            if parameter.dim() > 1 and bool(zero.any()):
                self.zeros.append((parameter, zero))

    def after_backward(self, moment: Moment) -> None:
        """Zeroes their gradients; without one, weight decay and momentum leave a zero alone."""
        for parameter, zero in self.zeros:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(zero, 0)

    def repeats(self, epoch: int, step: int, steps: int) -> bool:
        """Returns True: any step may be recorded."""
        return True
