"""Builds optimizers and their parameter groups, and computes the learning rate of every step."""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn.modules.conv import _ConvNd
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from prunebench.errors import TrainingError
from prunebench.recipes import Phase
from prunebench.training.heads import Head, Headed


def parameter_groups(network: nn.Module, phase: Phase) -> list[dict[str, Any]]:
    """Returns the trainable parameters in groups by weight decay and relative learning rate.

    Raises:
        TrainingError: nothing is trainable, or a pattern in `decay_of` matches no parameter.
    """
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not trainable:
        raise TrainingError("the network has no trainable parameter; set requires_grad")
    kernels = {
        id(module.weight)
        for module in network.modules()
        if isinstance(module, _ConvNd | nn.Linear | Head)
    }
    groups: dict[tuple[float, float], list[nn.Parameter]] = {
        (phase.weight_decay, 1.0): [],
        (0.0, 1.0): [],
    }
    unused = {*phase.decay_of}
    for name, parameter in _named(network):
        if not parameter.requires_grad:
            continue
        own = [pattern for pattern in phase.decay_of if fnmatchcase(name, pattern)]
        unused -= {*own}
        decays = phase.decay == "all" or id(parameter) in kernels
        usual = phase.weight_decay if decays else 0.0
        decay = phase.decay_of[own[0]] if own else usual
        rate = phase.bias_rate if name.rpartition(".")[2] == "bias" else 1.0
        groups.setdefault((decay, rate), []).append(parameter)
    if unused:
        names = [name for name, _ in _named(network)]
        raise TrainingError(
            f"decay_of: no parameter is called '{min(unused)}'; they are called {names[0]} to "
            f"{names[-1]}, and * stands for anything"
        )
    return [
        {"params": parameters, "weight_decay": decay, "rate": rate}
        for (decay, rate), parameters in groups.items()
        if parameters
    ]


def _named(network: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Returns the parameters by the names they have in a network without a head.

    A head's own parameter is called ``head.weight``.
    """
    within = "network." if isinstance(network, Headed) else ""
    return [(name.removeprefix(within), value) for name, value in network.named_parameters()]


def build_optimizer(network: nn.Module, phase: Phase, *, recorded: bool = False) -> optim.Optimizer:
    """Returns the optimizer of `phase` over the network's trainable parameters.

    On CUDA it uses fused kernels, one launch for all tensors.

    Args:
        network: the network to train.
        phase: how to train it.
        recorded: whether steps will be recorded. If so, each group's learning rate is a tensor on
            the device, since a replay repeats Python numbers as they were.
    """
    groups = parameter_groups(network, phase)
    first = groups[0]["params"][0]
    fused = True if recorded or first.is_cuda else None
    if recorded:
        for group in groups:
            group["lr"] = torch.tensor(phase.lr * group["rate"], device=first.device)
    lr = phase.lr
    if phase.optimizer == "sgd":
        return optim.SGD(
            groups, lr=lr, momentum=phase.momentum, nesterov=phase.nesterov, fused=fused
        )
    family = optim.Adam if phase.optimizer == "adam" else optim.AdamW
    return family(groups, lr=lr, betas=(phase.momentum, 0.999), fused=fused, capturable=recorded)


def load_optimizer(optimizer: optim.Optimizer, state: dict[str, Any]) -> None:
    """Loads `state`, whatever kernels the optimizer that left it used; this one keeps its own."""
    kept = ("lr", "fused", "foreach", "capturable")
    own = [
        {name: group[name] for name in kept if name in group} for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(state)
    for group, how in zip(optimizer.param_groups, own, strict=True):
        if isinstance(how["lr"], Tensor):
            how["lr"].fill_(float(group["lr"]))
        else:
            how["lr"] = float(group["lr"])
        group.update(how)


def learning_rate(phase: Phase, step: int, steps_per_epoch: int) -> float:
    """Returns the learning rate of `step`, counted from 0 over the whole phase."""
    warmup = round(phase.warmup_epochs * steps_per_epoch)
    total = phase.epochs * steps_per_epoch
    if step < warmup:
        return phase.lr * (step + 1) / warmup
    epoch = step // steps_per_epoch
    if phase.schedule == "cosine":
        now = max(warmup, epoch * steps_per_epoch) if phase.schedule_by == "epoch" else step
        return phase.lr * 0.5 * (1 + math.cos(math.pi * (now - warmup) / (total - warmup)))
    if phase.schedule_by == "iteration":
        return phase.lr * phase.gamma ** _milestones_passed(phase, step, total)
    return phase.lr * phase.gamma ** _milestones_passed(phase, epoch, phase.epochs)


def averaged(network: nn.Module, decay: float) -> AveragedModel | None:
    """Returns a moving average of the network's weights and buffers; None if `decay` is 0."""
    if not decay:
        return None
    keep = get_ema_multi_avg_fn(decay)
    return AveragedModel(network, multi_avg_fn=keep, use_buffers=True)


def _milestones_passed(phase: Phase, now: int, total: int) -> int:
    """Returns how many milestones lie at or before `now` of `total`; the very first passes none."""
    if phase.schedule == "constant":
        return 0
    marks = phase.milestones
    if phase.schedule == "step":
        marks = [k * marks[0] for k in range(1, math.ceil(1 / marks[0]))]
    return sum(now >= max(1, math.floor(mark * total + 0.5)) for mark in marks)
