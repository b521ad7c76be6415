"""Norms over the remaining channels; a zero in the weight marks a removed channel."""

from __future__ import annotations

import torch


def layer_norm(x, shape, weight=None, bias=None, eps=1e-5):
    if weight is None or weight.all():
        return torch.layer_norm(x, shape, weight, bias, eps)
    left = weight.nonzero()[:, 0]
    part = torch.layer_norm(x[..., left], (len(left),), weight[left], bias[left], eps)
    return torch.zeros_like(x).index_copy(-1, left, part)


def rms_norm(x, shape, weight=None, eps=None):
    if weight is None or weight.all():
        return torch.rms_norm(x, shape, weight, eps)
    left = weight.nonzero()[:, 0]
    part = torch.rms_norm(x[..., left], (len(left),), weight[left], eps)
    return torch.zeros_like(x).index_copy(-1, left, part)


def group_norm(x, groups, weight=None, bias=None, eps=1e-5):
    if weight is None or weight.all():
        return torch.group_norm(x, groups, weight, bias, eps)
    out, size = torch.zeros_like(x), x.size(1) // groups
    for start in range(0, x.size(1), size):
        left = weight[start : start + size].nonzero()[:, 0] + start
        if len(left):
            part = torch.group_norm(x[:, left], 1, weight[left], bias[left], eps)
            out = out.index_copy(1, left, part)
    return out
