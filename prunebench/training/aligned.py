"""Pads channels to multiples of 8 while training on a GPU, whose matrix units work in eights.

A pruned layer may have any number of channels. On an H200 a step of VGG-16 with one channel less
than a multiple of 8 in each layer takes 1.5 times as long as a step with the multiple. So zeros are
put behind the channels of a layer: filters of zeros answer with zeros, norms leave them zero, and
the next layer multiplies them by zeros, so all other channels compute what they would without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from prunebench.channels.untouched import untouched
from prunebench.reproducibility import cuda_math
from prunebench.training.trial import drawn_copy, learns_the_same, padded

#: number of 16-bit values that a matrix unit reads at once
MULTIPLE = 8


@dataclass(frozen=True)
class Aligned:
    """Holds the padded shapes in which a network is to compute.

    Attributes:
        shapes: name of a parameter or buffer -> its larger shape; only of those that get one.
        images: channels of the padded images; None if they stay as they are.
    """

    shapes: Mapping[str, torch.Size] = field(default_factory=dict)
    images: int | None = None


def align(network: nn.Module, images: Tensor) -> Aligned:
    """Returns the shapes that pad the channels of layers and images, or of only one of the two.

    The shapes are found by running a copy of the network, in train and eval mode, on tensors that
    are padded on the way. To check them, copies with random weights must learn the same in both
    sets of shapes; weights that happen to be zero would hide a difference. Nothing is padded where
    the number of channels matters to anything but batch norms, linear layers and convolutions of
    one group, nor where hooks would see it.

    Args:
        network: any; left as it is.
        images: a few, [n, C, H, W], on the network's device.
    """
    if any(_has_hooks(module) for module in network.modules()):
        return Aligned()
    channels = images.shape[1]
    for layers in (True, False):
        for wide in sorted({channels, next_multiple(channels)}, reverse=True):
            shapes = _shapes(network, images, wide, layers=layers)
            if shapes:
                return Aligned(shapes, wide if wide != channels else None)
    return Aligned()


def _has_hooks(module: nn.Module) -> bool:
    """Returns whether hooks see what `module` computes, or another forward replaces its own."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return "forward" in vars(module) or any(getattr(module, kind) for kind in hooks)


def _shapes(
    network: nn.Module, images: Tensor, channels: int, *, layers: bool
) -> dict[str, torch.Size]:
    """Returns the padded shapes for images of `channels` channels; empty if they change the result.

    Filters are padded only if `layers` is set.
    """
    devices = [images.device] if images.is_cuda else []
    try:
        with untouched(network), torch.random.fork_rng(devices), cuda_math(exact=True):
            wide = padded(images, len(images), channels)
            widening = _Widening(
                drawn_copy(network, images.device),
                next_multiple if layers else int,
                wide if channels != images.shape[1] else None,
            )
            for training in (True, False):
                with torch.no_grad(), widening:
                    widening.network.train(training)(wide)
            own = {name: value.shape for name, value in network.state_dict().items()}
            shapes = {name: s for name, s in widening.shapes.items() if s != own[name]}
            same = learns_the_same(network, images, shapes, channels) if shapes else False
    except Exception:  # noqa: BLE001  (any code may fail on widths that are not its own)
        return {}
    return shapes if same else {}


def next_multiple(count: int) -> int:
    """Returns the least multiple of 8 that is not below `count`."""
    return -(-count // MULTIPLE) * MULTIPLE


class _UnalignableError(Exception):
    """Raised when the network does something that zeros behind the channels would change."""


class _Widening(TorchFunctionMode):
    """Pads the tensors of layers as they are called, and records their shapes."""

    def __init__(
        self, network: nn.Module, filters: Callable[[int], int], images: Tensor | None
    ) -> None:
        """Records the names of the tensors of `network`.

        Args:
            network: the one that will be called.
            filters: number of filters -> the padded number.
            images: padded, which only convolutions may read; None if they are not padded.
        """
        super().__init__()
        self.network, self.filters, self.images = network, filters, images
        self.names: dict[int, str] = {}
        for name, tensor in network.state_dict(keep_vars=True).items():
            # a tensor with two names cannot be replaced under one of them
            self.names[id(tensor)] = "" if id(tensor) in self.names else name
        self.shapes: dict[str, torch.Size] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Calls `func`, with padded tensors if it is a layer's."""
        own = {
            functional.conv2d: self._convolve,
            functional.linear: self._linear,
            functional.batch_norm: self._normalise,
        }.get(func, func)
        reads = getattr(func, "__name__", "") not in ("__get__", "size", "dim")
        if own is func and reads and any(arg is self.images for arg in args if arg is not None):
            raise _UnalignableError  # only layers may see that images are padded, halved and reused
        return own(*args, **kwargs or {})

    def _convolve(  # noqa: PLR0913 - as torch has it
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        """Convolves with padded filters over as many channels as arrive; groups are not padded."""
        out, into, *kernel = weight.shape
        filters = self.filters(out)
        if groups > 1 and (filters, x.shape[1]) != (out, into * groups):
            raise _UnalignableError
        if groups == 1 and x.shape[1] not in (into, next_multiple(into)):
            raise _UnalignableError
        weight = self._padded(weight, filters, x.shape[1] // groups, *kernel)
        bias = self._padded(bias, filters)
        return functional.conv2d(x, weight, bias, stride, padding, dilation, groups)

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Multiplies as many features as arrive; the outputs of a linear layer are not padded."""
        if x.shape[-1] not in (weight.shape[1], next_multiple(weight.shape[1])):
            raise _UnalignableError
        return functional.linear(x, self._padded(weight, weight.shape[0], x.shape[-1]), bias)

    def _normalise(
        self,
        x: Tensor,
        mean: Tensor | None,
        var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        *rest: Any,
        **named: Any,
    ) -> Tensor:
        """Normalises as many channels as arrive."""
        mean, var, weight, bias = (self._padded(t, x.shape[1]) for t in (mean, var, weight, bias))
        return functional.batch_norm(x, mean, var, weight, bias, *rest, **named)

    def _padded(self, tensor: Tensor | None, *shape: int) -> Any:
        """Returns `tensor` padded to `shape`, and records the shape under its name."""
        if tensor is None:
            return None
        name = self.names.get(id(tensor), "")
        if name and self.shapes.setdefault(name, torch.Size(shape)) != shape:
            raise _UnalignableError  # a second call needs other widths than the first
        if tensor.shape == shape:
            return tensor
        if not name:
            raise _UnalignableError
        return padded(tensor, *shape)
