"""Synchronises batch norms over processes on any device; torch's SyncBatchNorm needs CUDA."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunebench.recipes import Phase
from prunebench.training import distributed


@contextmanager
def synchronised(network: nn.Module, phase: Phase) -> Iterator[None]:
    """Makes batch norms use all processes' images inside the block, if `phase` asks for it.

    It replaces their forward, not the modules, so observers, copies and checkpoints are unaffected.
    """
    if not phase.sync_batchnorm or distributed.size() == 1:
        yield
        return
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.__dict__["forward"] = MethodType(_forward, norm)
    try:
        yield
    finally:
        for norm in norms:
            del norm.__dict__["forward"]


def is_synchronised(norm: _BatchNorm) -> bool:
    """Returns whether `norm` uses the images of other processes now."""
    return "forward" in vars(norm)


def _forward(norm: _BatchNorm, images: Tensor) -> Tensor:
    """Does what the norm's own forward does, with the statistics of all processes' images."""
    if not norm.training:
        plain: Tensor = type(norm).forward(norm, images)
        return plain
    x = images.float()
    dims = [dim for dim in range(x.dim()) if dim != 1]
    count = x.new_tensor([x.numel() // x.shape[1]])
    sums = _Total.apply(torch.cat([x.sum(dims), count]))
    seen = sums[-1].detach()
    mean = sums[:-1] / seen
    like = (1, -1, *(1 for _ in dims[1:]))
    centred = x - mean.view(like)
    variance = _Total.apply(centred.square().sum(dims)) / seen
    _update_statistics(norm, mean.detach(), variance.detach() * seen / (seen - 1))
    scale = torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    out = centred * scale.view(like)
    if norm.bias is not None:
        out = out + norm.bias.view(like)
    answer: Tensor = out.to(images.dtype)
    return answer


def _update_statistics(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Updates the running statistics of `norm`."""
    if norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    share = norm.momentum
    if share is None:  # without momentum, they are means over all batches
        share = 1 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance, share)


class _Total(torch.autograd.Function):
    """Sums over the processes; so does its gradient, as every process's loss depends on the sum."""

    @staticmethod
    def forward(_ctx: Any, tensor: Tensor) -> Tensor:
        """Returns the sum."""
        return distributed.total(tensor)

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        """Returns the sum of the gradients."""
        return distributed.total(gradient)
