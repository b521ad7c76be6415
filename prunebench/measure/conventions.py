"""One network as different people count it."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import nn

from prunebench.measure.costs import macs, params


def conventions(network: nn.Module, example: torch.Tensor) -> dict[str, int]:
    """Returns parameters and operations of one image, by the name of the convention.

    ``params`` are all learnable numbers, ``weights`` those of convolutions and linear layers
    without biases. ``macs`` are multiply-adds of convolution, linear and matmul layers,
    ``macs_fvcore`` its own total, with normalisation and pooling, ``macs_hrank`` with the biases of
    linear layers.

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
    }
