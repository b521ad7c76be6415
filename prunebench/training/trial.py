"""Tests on copies of a network whether it learns the same with padded tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from prunebench.reproducibility import seed_draws

#: relative difference up to which values count as equal but for rounding; that of bfloat16 is 4e-3
ROUNDING = 3e-4
#: gradients this much smaller than the largest are mere rounding, as of a bias before a norm
SMALL = 1e-3


class _Outcome(NamedTuple):
    """Holds what a network returns and learns; gradients and buffers are in the network's order."""

    answer: Tensor
    grads: Sequence[Tensor | None]
    buffers: Sequence[Tensor]


def learns_the_same(
    network: nn.Module, images: Tensor, shapes: Mapping[str, torch.Size], channels: int
) -> bool:
    """Returns whether padding changes nothing, whatever values the padding of unread tensors has.

    Args:
        network: left as it is, except for what copies of it share with it.
        images: [n, C, H, W].
        shapes: name of a parameter or buffer -> its padded shape.
        channels: of the padded images.
    """
    for training, fills in ((True, (torch.zeros, _drawn)), (False, (_drawn,))):
        plain = _outcome(_copy_in_mode(network, images, training), images, {}, torch.zeros)
        wide = padded(images, len(images), channels)
        for fill in fills:
            found = _outcome(_copy_in_mode(network, images, training), wide, shapes, fill)
            if not _alike(found, plain):
                return False
    return True


def drawn_copy(network: nn.Module, device: torch.device) -> nn.Module:
    """Returns a copy with random weights, since a weight that is zero hides what depends on it.

    All copies of a network get the same weights.

    Raises:
        ValueError: the copy shares something with the network.
    """
    made = copy.deepcopy(network)
    parts = [{id(part) for part in (*net.modules(), *net.parameters())} for net in (network, made)]
    if parts[0] & parts[1]:  # a class may define __deepcopy__
        raise ValueError("the network cannot be copied")
    seed_draws(0, device)
    for module in made.modules():
        if isinstance(module, _DropoutNd):  # padding changes how many numbers dropout draws
            module.p = 0.0
        if isinstance(module, _BatchNorm):
            module.momentum = 1.0  # a single batch sets the running statistics
    for parameter in made.parameters():
        parameter.data = _drawn(parameter.shape, dtype=parameter.dtype, device=parameter.device)
    return made


def padded(tensor: Tensor, *shape: int, fill: Callable[..., Tensor] = torch.zeros) -> Tensor:
    """Returns `tensor` padded at the end of its first dimensions to the sizes in `shape`.

    Padding is zeros, except for rows added to the first dimension: `fill` makes those from a shape.
    """
    extra = [new - old for new, old in zip(shape, tensor.shape, strict=False)]
    extra += [0] * (tensor.dim() - len(extra))
    rows, extra[0] = extra[0], 0
    tensor = functional.pad(tensor, [n for count in reversed(extra) for n in (0, count)])
    if not rows:
        return tensor
    rest = fill((rows, *tensor.shape[1:]), dtype=tensor.dtype, device=tensor.device)
    return torch.cat([tensor, rest])


def corner(wide: Tensor, shape: Sequence[int]) -> Tensor:
    """Returns the view of `wide` with the first elements of each dimension, of size `shape`."""
    for dim, (size, own) in enumerate(zip(wide.shape, shape, strict=True)):
        if size != own:
            wide = wide.narrow(dim, 0, own)
    return wide


def _drawn(shape: Sequence[int], **where: Any) -> Tensor:
    """Returns random values: normal for kernels, within [0.5, 1.5] for norms and biases."""
    drawn = torch.empty(shape, **where)
    if drawn.numel() in (0, max(shape, default=1)):
        return drawn.uniform_(0.5, 1.5)
    return drawn.normal_(0, (2 / drawn[0].numel()) ** 0.5)


def _copy_in_mode(network: nn.Module, images: Tensor, training: bool) -> nn.Module:
    """Returns a random copy in train or eval mode; for eval its norms have seen the images once."""
    made = drawn_copy(network, images.device).train()
    if not training:
        with torch.no_grad():
            made(images.clone())
    return made.train(training)


def _outcome(
    made: nn.Module, images: Tensor, shapes: Mapping[str, torch.Size], fill: Callable[..., Tensor]
) -> _Outcome:
    """Returns the outcome of one batch, with gradients and buffers in their unpadded shapes."""
    own = {**dict(made.named_parameters()), **dict(made.named_buffers())}
    larger = {name: padded(own[name], *shape, fill=fill) for name, shape in shapes.items()}
    seed_draws(0, images.device)
    answer = functional_call(made, larger, (images.clone(),), tie_weights=False)
    trained = [parameter for parameter in made.parameters() if parameter.requires_grad]
    grads = torch.autograd.grad(answer.square().mean(), trained, allow_unused=True)
    buffers = [
        corner(larger[name], own[name].shape) if name in larger else buffer
        for name, buffer in made.named_buffers()
    ]
    return _Outcome(answer.detach(), grads, buffers)


def _alike(ours: _Outcome, plain: _Outcome) -> bool:
    """Returns whether two outcomes are finite and equal but for rounding."""
    apart = (plain.answer - plain.answer.mean(0)).abs().max()
    if not _close(ours.answer, plain.answer, apart):
        return False
    most = max(_largest(grad) for grad in plain.grads if grad is not None)
    for grad, own in zip(plain.grads, ours.grads, strict=True):
        if grad is None or own is None:
            if grad is not own:
                return False
        elif not _close(own, grad, _largest(grad).clamp(min=SMALL * float(most))):
            return False
    pairs = zip(ours.buffers, plain.buffers, strict=True)
    return all(_close(own, buffer, _largest(buffer)) for own, buffer in pairs)


def _close(ours: Tensor, plain: Tensor, size: Tensor) -> bool:
    """Returns whether two tensors differ by no more than the rounding of values of `size`."""
    if ours.shape != plain.shape:
        return False
    return not ours.numel() or bool(_largest(ours.double() - plain) <= ROUNDING * size)


def _largest(tensor: Tensor) -> Tensor:
    """Returns the largest absolute value, a float64 scalar; 0 if the tensor is empty."""
    return tensor.double().abs().max() if tensor.numel() else torch.zeros(())
