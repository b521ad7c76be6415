"""The costs of a network: parameters, multiply-adds, and bytes on disk."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

#: printed beside counts
CONVENTION = (
    "params: every learnable number; MACs: multiply-adds of convolution, linear and matmul "
    "layers for one image, without normalisation, activation and pooling"
)


@dataclass(frozen=True)
class LayerCost:
    """The costs of one convolution or linear layer.

    Attributes:
        name: as in ``network.named_modules()``.
        out_channels, in_channels: channels of the whole layer, over all its groups.
        params: its weights and biases.
        macs: multiply-adds for one image, over all its calls.
    """

    name: str
    out_channels: int
    in_channels: int
    params: int
    macs: int


def params(network: nn.Module) -> int:
    """Returns the number of parameters; shared ones count once, buffers do not."""
    return sum(parameter.numel() for parameter in network.parameters())


def macs(network: nn.Module, example: Tensor) -> int:
    """Returns the multiply-adds for one image; `CONVENTION` says which operations count.

    Args:
        network: left unchanged; a copy in eval mode is traced.
        example: [n, C, H, W] on the network's device; its first image is used.
    """
    return int(_counts(network, example)[""])


def layer_costs(network: nn.Module, example: Tensor) -> list[LayerCost]:
    """Returns the costs of every convolution and linear layer, in the order of the modules.

    Args:
        network: left unchanged.
        example: as in `macs`.
    """
    counts = _counts(network, example)
    rows = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            channels = (module.out_features, module.in_features)
        elif isinstance(module, nn.modules.conv._ConvNd):
            channels = (module.out_channels, module.in_channels)
        else:
            continue
        rows.append(LayerCost(name, *channels, params=params(module), macs=int(counts[name])))
    return rows


def _attention_macs(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Returns the MACs of scaled dot-product attention, which fvcore does not count.

    Its two products of query [..., L, E], key [..., S, E] and value [..., S, V] cost L S (E + V)
    for each index of the leading dimensions.
    """
    query, key, value = ([int(n) for n in tensor.type().sizes()] for tensor in inputs[:3])
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _counts(network: nn.Module, example: Tensor) -> Mapping[str, float]:
    """Returns module name ("" for the whole network) -> multiply-adds, counted by fvcore."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; the tracer warns of every `if`
        from fvcore.nn import jit_handles
        from fvcore.nn.jit_analysis import JitModelAnalysis

        analysis = JitModelAnalysis(copy.deepcopy(network).eval(), (example[:1],))
        analysis.set_op_handle(
            **{
                "aten::_convolution": jit_handles.conv_flop_jit,
                "aten::linear": jit_handles.linear_flop_jit,
                "aten::addmm": jit_handles.addmm_flop_jit,
                "aten::mm": jit_handles.matmul_flop_jit,
                "aten::matmul": jit_handles.matmul_flop_jit,
                "aten::bmm": jit_handles.bmm_flop_jit,
                "aten::einsum": jit_handles.einsum_flop_jit,
                "aten::scaled_dot_product_attention": _attention_macs,
            }
        )
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.tracer_warnings("none")
        counts: Mapping[str, float] = analysis.by_module()
    return counts


class _Counter(io.RawIOBase):
    """A file that only counts the bytes written to it."""

    size = 0

    def writable(self) -> bool:
        """Returns True."""
        return True

    def write(self, data: Any) -> int:
        """Counts the bytes of `data`."""
        count = memoryview(data).nbytes
        self.size += count
        return count


def size_bytes(network: nn.Module) -> int:
    """Returns the bytes that ``torch.save(network.state_dict())`` takes on disk."""
    counter = _Counter()
    torch.save(network.state_dict(), counter)  # type: ignore[arg-type]
    return counter.size
