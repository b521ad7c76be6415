"""Damage: how much a layer's output changes when some channels that it reads are zeroed.

Ding et al., "Approximated Oracle Filter Pruning", ICML 2019: t = sum (O - O')^2 / sum O^2, where O
is the output of the next layer with its norm and activation ("answer" below). A convolution is
linear in its input channels, so O' takes a convolution of the dropped channels only, to subtract.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunebench.criteria.aofp.edges import NORMS, Edge

#: smallest energy of an answer, against division by zero
TINY = 1e-30


def responses(edge: Edge, x: Tensor, drop: Tensor) -> Tensor:
    """Returns the part of the consumer's output that the inputs `drop` make; see `Draws.drop`."""
    if edge.flags:
        return _responses_to(edge, x, drop)
    weight = edge.consumer.weight.index_select(1, drop)
    if isinstance(edge.consumer, nn.Linear):
        return functional.linear(x.index_select(x.dim() - 1, drop), weight)
    if x.is_contiguous(memory_format=torch.channels_last):
        # in the layout of the undamaged output, for speed and equal rounding; picking columns of a
        # matrix is two to three times as fast as picking channels of four dimensions
        pixels = x.permute(0, 2, 3, 1)
        some = pixels.flatten(0, 2).index_select(1, drop)
        some = some.view(*pixels.shape[:3], len(drop)).permute(0, 3, 1, 2)
        weight = weight.contiguous(memory_format=torch.channels_last)
    else:
        some = x.index_select(1, drop)
    answer: Tensor = edge.consumer._conv_forward(some, weight, None)
    return answer


def _responses_to(edge: Edge, x: Tensor, flags: Tensor) -> Tensor:
    """Returns the same for the inputs whose flag is 1, with all weights."""
    consumer = edge.consumer
    if isinstance(consumer, nn.Linear):
        return functional.linear(x * flags, consumer.weight)
    answer: Tensor = consumer._conv_forward(x * flags.view(-1, 1, 1), consumer.weight, None)
    return answer


def of_some(
    edge: Edge, seen: tuple[Tensor, Tensor, Tensor], count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns `seen` (see `damages`) for the first `count` images, as if they were the batch.

    The norm's output is computed for these images alone; running statistics stay as they are.
    """
    x, y, z = (value[:count] for value in seen)
    if edge.norm is not None:
        with torch.no_grad():
            z = _normalised(edge.norm, y)
    return x, y, z


def _learns(norm: NORMS) -> bool:
    """Whether `norm` uses batch statistics; a frozen one uses its running ones."""
    return norm.training or norm.running_var is None


def _normalised(norm: NORMS, y: Tensor) -> Tensor:
    """Applies `norm` to `y`; running statistics stay as they are."""
    learns = _learns(norm)
    mean, variance = (None, None) if learns else (norm.running_mean, norm.running_var)
    return functional.batch_norm(
        y, mean, variance, norm.weight, norm.bias, training=learns, eps=norm.eps
    )


def damages(
    edge: Edge,
    seen: tuple[Tensor, Tensor, Tensor],
    drops: list[Tensor],
    alive: Tensor | None,
    *,
    bn_mode: str,
    reduction: str,
) -> Tensor:
    """Returns the damage t of each draw, float32 [draws], without gradients.

    Args:
        edge: the group and its consumer.
        seen: the consumer's input, its output, and the output of its norm (else its own again).
        drops: per draw, the inputs of the consumer that are zeroed: see `Draws.drop`.
        alive: bool [out], the output channels that count; None for all.
        bn_mode: ``own``: the norm uses the batch statistics of the damaged output; ``base``: those
            of the undamaged one.
        reduction: ``batch``: ratio of sums over the batch; ``example``: mean of each image's ratio.
    """
    x, y, z = seen
    batch = bn_mode == "own" and edge.norm is not None and _learns(edge.norm)
    exact = batch and edge.activation is None
    with torch.no_grad():
        if exact and reduction == "batch":
            base = _Moments(edge, y, alive)
            return torch.stack([base.damage(responses(edge, x, drop)) for drop in drops])
        whole = _activated(edge, z)
        energy = _sums(whole, alive, reduction).clamp_min(TINY)
        found = []
        for drop in drops:
            delta = responses(edge, x, drop)
            damaged = _activated(edge, _renormalised(edge, y, z, delta, bn_mode))
            lost = _sums(torch.sub(whole, damaged, out=damaged), alive, reduction)
            found.append(_mean_ratio(lost, energy))
        return torch.stack(found)


def _mean_ratio(lost: Tensor, energy: Tensor) -> Tensor:
    """Returns the mean of lost / energy over images [N], or the ratio of the whole batch [1].

    Among several images those with a zero answer that changes are left out: their ratio would be
    infinite.
    """
    ratios = lost / energy
    if len(ratios) == 1:
        return ratios[0]
    counts = (energy > TINY) | (lost == 0)
    return torch.where(counts, ratios, 0.0).sum() / counts.sum()


class _Moments:
    """Damage behind a norm without an activation, from per-channel moments alone.

    With centred y, the answer is a y and the damaged one b (y - d), where a and b are gamma over
    the two standard deviations; their difference is (a - b) y + b d.
    """

    def __init__(self, edge: Edge, y: Tensor, alive: Tensor | None) -> None:
        """Takes the moments of the undamaged output `y`."""
        norm = edge.norm
        assert norm is not None
        self.eps = norm.eps
        rows = _rows(y)
        self.ones = rows.new_ones(len(rows)) / len(rows)
        # without their means, beside which float32 would lose moments of channels that hardly vary
        memory = _memory(edge, rows)
        self.y, self.scratch = memory[0], memory[1]
        torch.sub(rows, self.ones @ rows, out=self.y)
        torch.square(self.y, out=self.scratch)
        self.variance = self.ones @ self.scratch
        counts = self.y.new_ones(self.y.shape[1]) if alive is None else alive.to(self.y.dtype)
        # gamma^2 and beta^2 of the channels that count
        gain = counts if norm.weight is None else counts * norm.weight.to(self.y.dtype).square()
        shift = 0 * counts if norm.bias is None else counts * norm.bias.to(self.y.dtype).square()
        self.gain = gain
        answer = gain * self.variance / (self.variance + self.eps) + shift
        self.energy = answer.sum().clamp_min(TINY)

    def damage(self, delta: Tensor) -> Tensor:
        """Returns t where the layer's output is less by `delta`; overwrites `delta`."""
        d = _rows(delta)
        d.sub_(self.ones @ d)
        product = self.ones @ torch.mul(self.y, d, out=self.scratch)
        square = self.ones @ d.square_()
        damaged = (self.variance - 2 * product + square).clamp_min_(0)
        a, b = (self.variance + self.eps).rsqrt(), (damaged + self.eps).rsqrt()
        lost = (a - b).square() * self.variance + 2 * (a - b) * b * product + b.square() * square
        return (self.gain * lost).sum().clamp_min_(0) / self.energy


def _memory(edge: Edge, like: Tensor) -> Tensor:
    """Returns scratch memory [2, *like.shape]: allocating it costs more than computing in it."""
    known = edge.scratch.get(like.numel())
    if known is None or known.device != like.device:
        size = 2 * like.numel()
        known = torch.empty(size, dtype=like.dtype, device=like.device)
        edge.scratch[like.numel()] = known
    return known.view(2, *like.shape)


def _rows(x: Tensor) -> Tensor:
    """Returns float32 [all but channels, channels] of [N, channels, ...]."""
    return x.float().movedim(1, -1).reshape(-1, x.shape[1])


def _activated(edge: Edge, z: Tensor) -> Tensor:
    """Returns the layer's answer, float32, its channels moved to dimension 1."""
    answer = (edge.activation(z) if edge.activation is not None else z).float()
    last = edge.norm is None and isinstance(edge.consumer, nn.Linear)
    return answer.movedim(-1, 1) if last else answer


def _renormalised(edge: Edge, y: Tensor, z: Tensor, delta: Tensor, bn_mode: str) -> Tensor:
    """Returns the norm's output for its input minus `delta`; running statistics stay.

    Overwrites `delta`.
    """
    norm = edge.norm
    if norm is None:
        return torch.sub(z, delta, out=delta)
    if bn_mode == "own":
        return _normalised(norm, torch.sub(y, delta, out=delta))
    return z - delta * _scale(edge, y).view(1, -1, *[1] * (y.dim() - 2)).to(delta.dtype)


def _scale(edge: Edge, y: Tensor) -> Tensor:
    """Returns gamma over the norm's standard deviation, float32 [out]; ones without a norm."""
    norm = edge.norm
    if norm is None:
        return torch.ones(len(edge.consumer.weight), device=y.device)
    known = None if _learns(norm) else norm.running_var
    variance = y.float().var([0, *range(2, y.dim())], unbiased=False) if known is None else known
    weight = torch.ones_like(variance) if norm.weight is None else norm.weight.float()
    return weight * (variance + norm.eps).rsqrt()


def _sums(answer: Tensor, alive: Tensor | None, reduction: str) -> Tensor:
    """Returns the sum of squares over the output channels `alive`, [1] or per image [N]."""
    if alive is not None:
        answer = answer * alive.view(1, -1, *[1] * (answer.dim() - 2))
    if reduction == "example":
        return answer.flatten(1).square().sum(1)
    flat = answer.movedim(1, -1).reshape(-1)  # a view of channels_last memory
    return torch.dot(flat, flat)[None]


def gram(edge: Edge, seen: tuple[Tensor, Tensor, Tensor], alive: Tensor | None) -> Tensor:
    """Returns G [classes, classes] such that d' G d is the damage of dropping the classes d.

    The change is taken before the activation and under undamaged batch statistics, and divided by
    the answer's energy behind the activation. Without an activation it is t of ``bn_mode=base``;
    for activations of slope at most 1 it bounds that t from above.

    Args:
        edge: the group and its consumer, which has at most a few thousand weights per output.
        seen: as for `damages`.
        alive: bool [out], the output channels that count; None for all.
    """
    x, y, z = (value.float() for value in seen)
    with torch.no_grad():
        consumer = edge.consumer
        weight = consumer.weight.float().flatten(1) * _scale(edge, y)[:, None]
        if alive is not None:
            weight = weight * alive[:, None]
        if isinstance(consumer, nn.Linear):
            columns = x.reshape(-1, x.shape[-1])
        else:
            mode = "constant" if consumer.padding_mode == "zeros" else consumer.padding_mode
            patches = functional.unfold(
                functional.pad(x, consumer._reversed_padding_repeated_twice, mode),
                consumer.kernel_size,
                dilation=consumer.dilation,
                stride=consumer.stride,
            )
            columns = patches.transpose(1, 2).flatten(0, 1)
        pairs = (columns.T @ columns) * (weight.T @ weight)
        kernel = weight.shape[1] // consumer.weight.shape[1]
        owner = torch.full((consumer.weight.shape[1],), -1)
        for number, positions in enumerate(edge.positions):
            owner[positions] = number
        owner = owner.repeat_interleave(kernel).to(x.device)
        belongs = owner[:, None] == torch.arange(len(edge.positions), device=x.device)
        blocks = belongs.float()
        energy = _sums(_activated(edge, z), alive, "batch").clamp_min(TINY)
        return blocks.T @ pairs @ blocks / energy
