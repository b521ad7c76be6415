"""Counts parameters and operations by the conventions of other papers and tools."""

from __future__ import annotations

import copy
import warnings
from math import prod
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunebench.measure.costs import macs, params


def conventions(network: nn.Module, example: torch.Tensor) -> dict[str, int]:
    """Returns name of a convention -> its count of parameters, or of operations for one image.

    ``params``: all learnable numbers. ``weights``: those of convolutions and linear layers without
    biases. ``macs``: multiply-adds of convolution, linear and matmul layers. ``macs_fvcore``:
    fvcore's own total, with normalisation and pooling. ``macs_hrank``: ``macs`` and the biases of
    linear layers. ``flops_foad``: the count of FOAD's authors, see `foad_flops`.

    Args:
        network: left unchanged.
        example: [1, C, H, W] on the network's device.
    """
    ours = macs(network, example)
    layers = [m for m in network.modules() if isinstance(m, nn.modules.conv._ConvNd | nn.Linear)]
    linear = [m for m in layers if isinstance(m, nn.Linear) and m.bias is not None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; the tracer warns of every `if`
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(copy.deepcopy(network).eval(), example)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.tracer_warnings("none")
        whole = int(analysis.total())
    return {
        "params": params(network),
        "weights": sum(m.weight.numel() for m in layers),
        "macs": ours,
        "macs_fvcore": whole,
        "macs_hrank": ours + sum(m.bias.numel() for m in linear),
        "flops_foad": foad_flops(network, example),
    }


def foad_flops(network: nn.Module, example: torch.Tensor) -> int:
    """Returns the operations of one image as FOAD's authors count them.

    Two for each multiply-add of a convolution or linear layer, two for each output of a batch norm,
    one for each output of a ReLU module, and the kernel's area for each output of a pooling module.
    Functions that are no modules count nothing.

    Args:
        network: left unchanged.
        example: [1, C, H, W] on the network's device.
    """
    total = 0

    def count(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal total
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            each = 2 * module.weight[0].numel()
        elif isinstance(module, _BatchNorm):
            each = 2
        elif isinstance(module, nn.ReLU):
            each = 1
        elif isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
            side = module.kernel_size
            each = side**2 if isinstance(side, int) else prod(side)
        else:  # which may return more than a tensor
            return
        total += each * output.numel()

    copied = copy.deepcopy(network).eval()
    for module in copied.modules():
        module.register_forward_hook(count)
    with torch.no_grad():
        copied(example)
    return total
