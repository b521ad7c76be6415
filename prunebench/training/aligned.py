"""Channels in eights: a GPU's matrix units take them so, and a pruned layer has any number.

On an H200 a step of VGG-16 with a channel less than a multiple of 8 in each layer takes 1.5 times
as long as one with the multiple. So zeros are put behind the channels of a layer while it is
trained: filters of zeros answer with zeros, norms leave them zero, and what reads them multiplies
them by zeros, so that all others compute what they would without.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

from prunebench.reproducibility import cuda_math

#: halves that a matrix unit reads at once
MULTIPLE = 8
#: difference of answers that is no more than rounding, of how far those to several images are apart
ROUNDING = 1e-3


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
    way. Where anything but convolutions of one group, batch norms and linear layers depends on the
    number of channels, so that the copy fails or answers with something else, nothing is aligned.

    Args:
        network: any; left as it is.
        images: [n, C, H, W], a few, on its device.
    """
    channels = images.shape[1]
    for layers in (True, False):
        for wide in sorted({channels, larger(channels)}, reverse=True):
            shapes = _shapes(network, _more(images, images.shape[0], wide), images, layers=layers)
            if shapes:
                return Aligned(shapes, wide if wide != channels else None)
    return Aligned()


def _shapes(
    network: nn.Module, wide: Tensor, images: Tensor, *, layers: bool
) -> dict[str, torch.Size]:
    """Returns the larger shapes that compute on `wide` what the network does on `images`.

    Nothing where they compute something else. Filters become more only where `layers` says so.
    """
    try:
        trial = copy.deepcopy(network)
        for module in trial.modules():
            if isinstance(module, _DropoutNd):  # which draws as many numbers as there are channels
                module.p = 0.0
        widening, same = _Widening(trial, larger if layers else int), True
        with torch.no_grad(), cuda_math(exact=True):
            for training in (True, False):
                trial.train(training)
                with widening:
                    answer = trial(wide)
                plain = trial(images)
                apart = (plain - plain.mean(0)).abs().max()
                same = same and bool((answer - plain).abs().max() <= ROUNDING * apart)
    except Exception:  # noqa: BLE001  (any code may fail on widths that are not its own)
        return {}
    own = {name: value.shape for name, value in network.state_dict().items()}
    return {name: s for name, s in widening.shapes.items() if s != own[name]} if same else {}


def larger(count: int) -> int:
    """Returns the next multiple of 8."""
    return -(-count // MULTIPLE) * MULTIPLE


class _UnalignableError(Exception):
    """Something is met that zeros behind the channels would change."""


class _Widening(TorchFunctionMode):
    """Makes the tensors of layers larger as they are called, and notes their shapes."""

    def __init__(self, network: nn.Module, filters: Callable[[int], int]) -> None:
        super().__init__()
        self.filters = filters
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
        return _more(tensor, *shape)


def _more(tensor: Tensor, *shape: int) -> Tensor:
    """Returns `tensor` with zeros behind it in the first dimensions, as many as `shape` has."""
    more = [new - old for new, old in zip(shape, tensor.shape, strict=False)]
    more += [0] * (tensor.dim() - len(more))
    return functional.pad(tensor, [n for extra in reversed(more) for n in (0, extra)])
