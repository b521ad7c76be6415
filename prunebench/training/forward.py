"""The forward pass of a training step: what each layer would do for itself is done for all at once.

A GPU takes as long for a tiny operation as for a small one, and a step of a small network is made
of hundreds. Casting each kernel and its gradient by itself, and counting the steps of each norm,
is a fifth of them.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm


class Forward:
    """Calls a network as it is trained; bit for bit what calling it under autocast comes to."""

    def __init__(self, network: nn.Module, half: torch.dtype | None) -> None:
        """Finds what can be done together.

        Args:
            network: whose parameters are float32.
            half: what autocast computes in; None where it is off.
        """
        self.network, self.half = network, half
        # a norm without a momentum averages by its count, which must be there when it is called;
        # so must it for a forward that is not torch's own
        self.norms = [
            module
            for module in network.modules()
            if isinstance(module, _BatchNorm)
            and module.momentum is not None
            and _is_own(module, _BatchNorm)
        ]
        # layers of exactly these classes: autocast casts their parameters, and nothing else is
        # known to read them; one that computes its weight has parameters of other names
        self.halved = {
            f"{name}.{kind}" if name else kind: parameter
            for name, module in network.named_modules()
            if half is not None and type(module) in (nn.Conv2d, nn.Linear)
            for kind, parameter in module.named_parameters(recurse=False)
            if kind in ("weight", "bias")
            and parameter.requires_grad
            and _is_own(module, type(module))
        }

    def __call__(self, images: Tensor) -> Tensor:
        """Returns the logits; to be called under autocast."""
        counters = {
            norm: norm.num_batches_tracked
            for norm in self.norms
            if norm.training and norm.num_batches_tracked is not None
        }
        for norm in counters:
            norm.num_batches_tracked = None
        try:
            logits = self._logits(images)
        finally:
            for norm, counter in counters.items():
                norm.num_batches_tracked = counter
        if counters:
            torch._foreach_add_([*counters.values()], 1)
        return logits

    def _logits(self, images: Tensor) -> Tensor:
        """Calls the network with its parameters as autocast would cast them."""
        if self.halved:
            halves = _Cast.apply(self.half, *self.halved.values())
            exchanged = dict(zip(self.halved, halves, strict=True))
            logits = functional_call(self.network, exchanged, (images,), tie_weights=False)
        else:  # as of a scripted network, whose parameters cannot be exchanged
            logits = self.network(images)
        return cast("Tensor", logits)


def _is_own(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether `module` runs the forward of torch's class `kind`."""
    return type(module).forward is kind.forward and "forward" not in vars(module)


class _Cast(torch.autograd.Function):
    """Tensors in another type, and their gradients back in their own, with one call each way."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Returns them in `dtype`."""
        ctx.set_materialize_grads(False)  # what is not used gets no gradient, not one of zeros
        halves = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
        torch._foreach_copy_(halves, tensors)
        return tuple(halves)

    @staticmethod
    def backward(_: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Returns the gradients in float32."""
        found = [grad for grad in grads if grad is not None]
        whole = [torch.empty_like(grad, dtype=torch.float32) for grad in found]
        if found:
            torch._foreach_copy_(whole, found)
        left = iter(whole)
        return (None, *(None if grad is None else next(left) for grad in grads))
