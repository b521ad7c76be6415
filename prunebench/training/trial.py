"""Whether a network learns the same with tensors that are made larger: tried on copies of it."""

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

#: difference that is no more than rounding, of how large values are; bfloat16's own is 4e-3
ROUNDING = 3e-4
#: gradients this much smaller than the largest are rounding, such as of a bias before a norm
SMALL = 1e-3


class _Outcome(NamedTuple):
    """What a network answers and learns, in the order of its tensors."""

    answer: Tensor
    grads: Sequence[Tensor | None]
    buffers: Sequence[Tensor]


def learns_the_same(
    network: nn.Module, images: Tensor, shapes: Mapping[str, torch.Size], channels: int
) -> bool:
    """Whether larger shapes change nothing, whatever is in them that nothing is to read.

    Args:
        network: left as it is, but for what it shares with its copies.
        images: [n, C, H, W].
        shapes: name of a parameter or buffer -> its larger shape.
        channels: of the images, zeros behind them.
    """
    for training, fills in ((True, (torch.zeros, _drawn)), (False, (_drawn,))):
        plain = _outcome(_at_work(network, images, training), images, {}, torch.zeros)
        wide = more(images, len(images), channels)
        for fill in fills:
            found = _outcome(_at_work(network, images, training), wide, shapes, fill)
            if not _alike(found, plain):
                return False
    return True


def drawn_copy(network: nn.Module, device: torch.device) -> nn.Module:
    """Returns a copy with drawn weights: one that is zero today hides what is behind it.

    The copies of a network are all alike.

    Raises:
        ValueError: the copy shares something with the network.
    """
    made = copy.deepcopy(network)
    parts = [{id(part) for part in (*net.modules(), *net.parameters())} for net in (network, made)]
    if parts[0] & parts[1]:  # a class may say itself how it is copied
        raise ValueError("the network cannot be copied")
    seed_draws(0, device)
    for module in made.modules():
        if isinstance(module, _DropoutNd):  # which draws as many numbers as there are channels
            module.p = 0.0
        if isinstance(module, _BatchNorm):
            module.momentum = 1.0  # one batch makes the statistics of the drawn weights
    for parameter in made.parameters():
        parameter.data = _drawn(parameter.shape, dtype=parameter.dtype, device=parameter.device)
    return made


def more(tensor: Tensor, *shape: int, fill: Callable[..., Tensor] = torch.zeros) -> Tensor:
    """Returns `tensor` with zeros behind it in the first dimensions, as many as `shape` has.

    Behind it in its very first is what `fill` makes of a shape.
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
    """Returns the part of `wide` that comes first in every dimension."""
    for dim, (size, own) in enumerate(zip(wide.shape, shape, strict=True)):
        if size != own:
            wide = wide.narrow(dim, 0, own)
    return wide


def _drawn(shape: Sequence[int], **where: Any) -> Tensor:
    """Returns numbers as kernels hold them, or norms and biases, none of which is about zero."""
    drawn = torch.empty(shape, **where)
    if drawn.numel() in (0, max(shape, default=1)):
        return drawn.uniform_(0.5, 1.5)
    return drawn.normal_(0, (2 / drawn[0].numel()) ** 0.5)


def _at_work(network: nn.Module, images: Tensor, training: bool) -> nn.Module:
    """Returns a copy of the network in a mode; where it does not train, it has seen the images."""
    made = drawn_copy(network, images.device).train()
    if not training:
        with torch.no_grad():
            made(images.clone())
    return made.train(training)


def _outcome(
    made: nn.Module, images: Tensor, shapes: Mapping[str, torch.Size], fill: Callable[..., Tensor]
) -> _Outcome:
    """Returns what comes of one batch, in the shapes that tensors have without the larger ones."""
    own = {**dict(made.named_parameters()), **dict(made.named_buffers())}
    larger = {name: more(own[name], *shape, fill=fill) for name, shape in shapes.items()}
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
    """Whether two outcomes are the same but for rounding; nothing that is not finite is."""
    apart = (plain.answer - plain.answer.mean(0)).abs().max()
    if not _close(ours.answer, plain.answer, apart):
        return False
    most = max(_most(grad) for grad in plain.grads if grad is not None)
    for grad, own in zip(plain.grads, ours.grads, strict=True):
        if grad is None or own is None:
            if grad is not own:
                return False
        elif not _close(own, grad, _most(grad).clamp(min=SMALL * float(most))):
            return False
    pairs = zip(ours.buffers, plain.buffers, strict=True)
    return all(_close(own, buffer, _most(buffer)) for own, buffer in pairs)


def _close(ours: Tensor, plain: Tensor, size: Tensor) -> bool:
    """Whether tensors differ by no more than rounding of values of this size."""
    if ours.shape != plain.shape:
        return False
    return not ours.numel() or bool(_most(ours.double() - plain) <= ROUNDING * size)


def _most(tensor: Tensor) -> Tensor:
    """Returns the largest size of a value."""
    return tensor.double().abs().max() if tensor.numel() else torch.zeros(())
