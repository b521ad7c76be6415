"""Optimizers, their parameter groups, and the learning rate of every step."""

from __future__ import annotations

import math
from typing import Any

from torch import nn, optim
from torch.nn.modules.conv import _ConvNd

from prunebench.errors import TrainingError
from prunebench.recipes import Phase


def parameter_groups(network: nn.Module, phase: Phase) -> list[dict[str, Any]]:
    """Returns the trainable parameters in optimizer groups, by whether they decay.

    Raises:
        TrainingError: the network has no trainable parameter.
    """
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not trainable:
        raise TrainingError("the network has no trainable parameter; set requires_grad")
    if phase.decay == "all":
        return [{"params": trainable, "weight_decay": phase.weight_decay}]
    kernels = {
        id(module.weight) for module in network.modules() if isinstance(module, _ConvNd | nn.Linear)
    }
    decayed = [parameter for parameter in trainable if id(parameter) in kernels]
    others = [parameter for parameter in trainable if id(parameter) not in kernels]
    groups = [
        {"params": decayed, "weight_decay": phase.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(network: nn.Module, phase: Phase) -> optim.Optimizer:
    """Returns the optimizer of `phase` over the network's trainable parameters.

    On CUDA the fused kernels are used: one launch for all tensors.
    """
    groups = parameter_groups(network, phase)
    fused = True if groups[0]["params"][0].is_cuda else None
    if phase.optimizer == "sgd":
        return optim.SGD(
            groups, lr=phase.lr, momentum=phase.momentum, nesterov=phase.nesterov, fused=fused
        )
    family = optim.Adam if phase.optimizer == "adam" else optim.AdamW
    return family(groups, lr=phase.lr, betas=(phase.momentum, 0.999), fused=fused)


def learning_rate(phase: Phase, step: int, steps_per_epoch: int) -> float:
    """Returns the rate of one step.

    Args:
        phase: what is trained.
        step: counted from 0 over the whole phase.
        steps_per_epoch: as `split.steps` says.
    """
    warmup = round(phase.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return phase.lr * (step + 1) / warmup
    if phase.schedule == "cosine":
        total = phase.epochs * steps_per_epoch
        return phase.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
    return phase.lr * phase.gamma ** _milestones_passed(phase, step // steps_per_epoch)


def _milestones_passed(phase: Phase, epoch: int) -> int:
    """Number of milestones at or before `epoch`, counted from 0; the first epoch passes none."""
    if phase.schedule == "constant":
        return 0
    marks = phase.milestones
    if phase.schedule == "step":
        marks = [k * marks[0] for k in range(1, math.ceil(1 / marks[0]))]
    return sum(epoch >= max(1, math.floor(mark * phase.epochs + 0.5)) for mark in marks)
