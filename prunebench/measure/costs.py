"""The costs of a network: parameters, multiply-adds, and bytes on disk."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunebench.channels.multiply_adds import MultiplyAdds, taken_apart

#: printed beside counts
CONVENTION = (
    "params: every learnable number; MACs: multiply-adds of convolution, linear and matmul "
    "layers for one image, without normalisation, activation and pooling"
)
#: kinds of layers that `layer_costs` lists
LAYERS = (nn.Linear, nn.modules.conv._ConvNd)


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
        network: left unchanged; a copy in eval mode runs.
        example: [n, C, H, W] on the network's device; its first image is used.
    """
    return _counted(network, example).total


def layer_costs(network: nn.Module, example: Tensor) -> list[LayerCost]:
    """Returns the costs of every convolution and linear layer, in the order of the modules.

    Args:
        network: left unchanged.
        example: as in `macs`.
    """
    counts = _counted(network, example).by_layer
    rows = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            channels = (module.out_features, module.in_features)
        elif isinstance(module, nn.modules.conv._ConvNd):
            channels = (module.out_channels, module.in_channels)
        else:
            continue
        rows.append(LayerCost(name, *channels, params=params(module), macs=counts[name]))
    return rows


def _counted(network: nn.Module, example: Tensor) -> MultiplyAdds:
    """Runs a copy in eval mode on the first image; returns the counter, with counts by layer."""
    copied = copy.deepcopy(network).eval()
    layers = {name: m for name, m in copied.named_modules() if isinstance(m, LAYERS)}
    # nn.MultiheadAttention passes the weight of its last layer to a function, and never calls it
    own = {name: layer._parameters.get("weight") for name, layer in layers.items()}
    counter = MultiplyAdds({w.data_ptr(): name for name, w in own.items() if w is not None})

    def runs(name: str | None) -> Callable[..., None]:
        def note(*_: object) -> None:
            counter.running = name

        return note

    for name, layer in layers.items():
        layer.register_forward_pre_hook(runs(name))
        layer.register_forward_hook(runs(None))
    with torch.no_grad(), taken_apart(), counter:
        copied(example[:1])
    return counter


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
