"""Channels in eights: a GPU's matrix units take them so, and a pruned layer has any number.

On an H200 a step of a network with a channel less than a multiple of 8 in each layer takes 1.4
times as long as one with the multiple. So zeros are put behind the channels of a layer while it is
trained: filters of zeros answer with zeros, norms leave them zero, and what reads them multiplies
them by zeros, so that all others compute what they would without.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

#: halves that a matrix unit reads at once
MULTIPLE = 8
#: difference of logits, of the largest, that is no more than rounding (TensorFloat-32's, at worst)
ROUNDING = 1e-2


def aligned_shapes(network: nn.Module, images: Tensor) -> dict[str, torch.Size]:
    """Returns the shapes that parameters and buffers would have with channels in eights.

    Found by running a copy of the network, in both modes, with tensors that are made larger on the
    way. Where anything but convolutions of one group, batch norms and linear layers depends on the
    number of channels, so that the copy fails or answers with something else, nothing is aligned.

    Args:
        network: any; left as it is.
        images: [n, C, H, W], two or more, on its device.

    Returns:
        name -> larger shape, for those alone that are larger; empty where nothing is.
    """
    widths = [m.weight.shape[0] for m in network.modules() if isinstance(m, nn.Conv2d)]
    if all(width == larger(width) for width in widths):
        return {}
    try:
        trial = copy.deepcopy(network)
        widening = _Widening(trial)
        for training in (True, False):
            with torch.no_grad(), widening:
                answer = trial.train(training)(images)
        with torch.no_grad():
            plain = trial(images)
        same = bool((answer - plain).abs().max() <= ROUNDING * plain.abs().max())
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

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
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

    def _convolve(
        self, x: Tensor, weight: Tensor, bias: Tensor | None = None, *more: Any, **named: Any
    ) -> Tensor:
        """Has filters in eights, of as many channels as arrive."""
        out, into, *kernel = weight.shape
        if x.shape[1] not in (into, larger(into)):
            raise _UnalignableError
        shape = (larger(out), x.shape[1], *kernel)
        wide = self._wide(weight, *shape)
        return functional.conv2d(x, wide, self._wide(bias, shape[0]), *more, **named)

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
        more = [new - old for new, old in zip(shape, tensor.shape, strict=True)]
        if not any(more):
            return tensor
        if not name:
            raise _UnalignableError
        return functional.pad(tensor, [n for extra in reversed(more) for n in (0, extra)])
