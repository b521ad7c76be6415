"""Channels in eights: a GPU's matrix units take them so, and a pruned layer has any number.

On an H200 a step of VGG-16 with a channel less than a multiple of 8 in each layer takes 1.5 times
as long as one with the multiple. So zeros are put behind the channels of a layer while it is
trained: filters of zeros answer with zeros, norms leave them zero, and what reads them multiplies
them by zeros, so that all others compute what they would without.
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
from prunebench.training.trial import drawn_copy, learns_the_same, more

#: halves that a matrix unit reads at once
MULTIPLE = 8


@dataclass(frozen=True)
class Aligned:
    """What a network is to compute in.

    Attributes:
        shapes: name of a parameter or buffer -> its larger shape; of no others.
        images: channels of the images; None where they stay as they are.
    """

    shapes: Mapping[str, torch.Size] = field(default_factory=dict)
    images: int | None = None


def align(network: nn.Module, images: Tensor) -> Aligned:
    """Returns the shapes with channels in eights: of images and layers, or of one of the two.

    Found by running a copy of the network, in both modes, with tensors that are made larger on the
    way. Then copies with drawn weights are to learn the same in these shapes as in their own: a
    weight that is zero today hides nothing. Where anything but convolutions of one group, batch
    norms and linear layers depends on the number of channels, nothing is aligned; nor is it where
    hooks look on.

    Args:
        network: any; left as it is.
        images: [n, C, H, W], a few, on its device.
    """
    if any(_is_watched(module) for module in network.modules()):
        return Aligned()
    channels = images.shape[1]
    for layers in (True, False):
        for wide in sorted({channels, larger(channels)}, reverse=True):
            shapes = _shapes(network, images, wide, layers=layers)
            if shapes:
                return Aligned(shapes, wide if wide != channels else None)
    return Aligned()


def _is_watched(module: nn.Module) -> bool:
    """Whether something that is no part of the module sees what it computes, or computes it."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return "forward" in vars(module) or any(getattr(module, kind) for kind in hooks)


def _shapes(
    network: nn.Module, images: Tensor, channels: int, *, layers: bool
) -> dict[str, torch.Size]:
    """Returns the larger shapes that compute on images of so many channels what the network does.

    Nothing where they compute something else. Filters become more only where `layers` says so.
    """
    devices = [images.device] if images.is_cuda else []
    try:
        with untouched(network), torch.random.fork_rng(devices), cuda_math(exact=True):
            wide = more(images, len(images), channels)
            widening = _Widening(
                drawn_copy(network, images.device),
                larger if layers else int,
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


def larger(count: int) -> int:
    """Returns the next multiple of 8."""
    return -(-count // MULTIPLE) * MULTIPLE


class _UnalignableError(Exception):
    """Something is met that zeros behind the channels would change."""


class _Widening(TorchFunctionMode):
    """Makes the tensors of layers larger as they are called, and notes their shapes."""

    def __init__(
        self, network: nn.Module, filters: Callable[[int], int], images: Tensor | None
    ) -> None:
        """Knows the tensors of `network`.

        Args:
            network: called.
            filters: of a number of filters, how many there are to be.
            images: larger, which convolutions alone may read; None where they are as they were.
        """
        super().__init__()
        self.network, self.filters, self.images = network, filters, images
        self.names: dict[int, str] = {}
        for name, tensor in network.state_dict(keep_vars=True).items():
            # what two names share is exchanged under neither
            self.names[id(tensor)] = "" if id(tensor) in self.names else name
        self.shapes: dict[str, torch.Size] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Calls `func`."""
        own = {
            functional.conv2d: self._convolve,
            functional.linear: self._multiply,
            functional.batch_norm: self._normalise,
        }.get(func, func)
        reads = getattr(func, "__name__", "") not in ("__get__", "size", "dim")
        if own is func and reads and any(arg is self.images for arg in args if arg is not None):
            raise _UnalignableError  # they come in halves, and are written to memory of ours
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
        """Has filters in eights, of as many channels as arrive; groups stay as they are."""
        out, into, *kernel = weight.shape
        filters = self.filters(out)
        if groups > 1 and (filters, x.shape[1]) != (out, into * groups):
            raise _UnalignableError
        if groups == 1 and x.shape[1] not in (into, larger(into)):
            raise _UnalignableError
        weight = self._wide(weight, filters, x.shape[1] // groups, *kernel)
        bias = self._wide(bias, filters)
        return functional.conv2d(x, weight, bias, stride, padding, dilation, groups)

    def _multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Reads as many features as arrive; a linear layer answers as it would."""
        if x.shape[-1] not in (weight.shape[1], larger(weight.shape[1])):
            raise _UnalignableError
        return functional.linear(x, self._wide(weight, weight.shape[0], x.shape[-1]), bias)

    def _normalise(
        self,
        x: Tensor,
        mean: Tensor | None,
        var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        *more: Any,
        **named: Any,
    ) -> Tensor:
        """Normalises as many channels as arrive."""
        mean, var, weight, bias = (self._wide(t, x.shape[1]) for t in (mean, var, weight, bias))
        return functional.batch_norm(x, mean, var, weight, bias, *more, **named)

    def _wide(self, tensor: Tensor | None, *shape: int) -> Any:
        """Returns `tensor` in a larger shape, and notes that."""
        if tensor is None:
            return None
        name = self.names.get(id(tensor), "")
        if name and self.shapes.setdefault(name, torch.Size(shape)) != shape:
            raise _UnalignableError  # called twice, with other widths
        if tensor.shape == shape:
            return tensor
        if not name:
            raise _UnalignableError
        return more(tensor, *shape)
