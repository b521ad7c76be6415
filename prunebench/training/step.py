"""One step of the training loop: forward, backward, update."""

from __future__ import annotations

import torch
from torch import Tensor

from prunebench.contracts import Moment
from prunebench.reproducibility import seed_draws, seed_for
from prunebench.training import distributed
from prunebench.training.losses import phase_loss
from prunebench.training.optim import learning_rate
from prunebench.training.split import images_at
from prunebench.training.state import Training

#: precision -> what the forward pass computes in
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def train_step(run: Training, images: Tensor, labels: Tensor) -> None:
    """Does one step on a batch, or on this process's part of it."""
    begin_step(run, len(labels))
    lr = learning_rate(run.phase, run.epoch * run.steps + run.step, run.steps)
    for group in run.optimizer.param_groups:
        group["lr"] = lr * group["rate"]
    learn(run, images, labels, run.step)
    count_step(run, len(labels))


def begin_step(run: Training, images: int) -> None:
    """Tells observers which step it is, and makes all draws a function of it, stage and seed."""
    for observer in run.stage.observers:
        observer.before_step(run.epoch, run.step, images)
    draws = (run.epoch, run.step, *distributed.own_draws())
    seed_draws(seed_for(run.stage.seed, run.stage.name, "step", *draws), run.stage.device)


def count_step(run: Training, images: int) -> None:
    """Does what belongs to a step of so many images and is not recorded."""
    if run.average is not None:
        run.average.update_parameters(run.network)
    run.tally.seen += images


def learn(run: Training, images: Tensor, labels: Tensor, step: int | Tensor) -> None:
    """Moves the weights by what a batch teaches, and counts what it got right.

    All of it happens on the device, and in the same order on every one: on CUDA this is recorded.

    Args:
        run: of which everything is changed in place.
        images: the batch, or this process's part of it.
        labels: of these images.
        step: within the epoch; on the device where it is recorded.
    """
    stage, phase = run.stage, run.phase
    run.optimizer.zero_grad()
    # gradients become the mean over the processes, whose parts of a batch may differ by an image
    mean_over = images_at(run.step, len(run.train), phase.batch_size) / distributed.size()
    loss, logits = _gradients(run, images, labels, mean_over)
    distributed.average_statistics(run.network)
    run.scaler.unscale_(run.optimizer)
    scale = run.scaler.get_scale()
    moment = Moment(run.epoch, run.step, run.steps, labels, mean_over, scale)
    for observer in stage.observers:
        observer.after_backward(moment)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    # a list, since every observer is to see the step, whatever those before it say
    run.over = any([observer.after_step(moment) for observer in stage.observers])
    run.tally.add(step, loss, logits, labels)


def autocast(run: Training) -> torch.autocast:
    """Returns the precision of the forward pass."""
    half = HALF.get(run.phase.precision)
    return torch.autocast(run.stage.device.type, half, enabled=half is not None)


def _gradients(
    run: Training, images: Tensor, labels: Tensor, mean_over: float
) -> tuple[Tensor, Tensor]:
    """Adds up the gradients of the batch, part by part; returns its mean loss and its logits."""
    # a part of one image is none for batch norm
    parts = max(1, min(run.phase.accumulate, len(labels) // 2))
    if run.phase.sync_batchnorm and run.phase.accumulate > 1:  # which meet at every part
        parts = int(distributed.lowest(torch.tensor(parts, device=labels.device)))
    found: list[tuple[Tensor, Tensor]] = []
    pairs = zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True)
    for number, (some, targets) in enumerate(pairs, start=1):
        with distributed.shared(run.forward, now=number == parts):
            with autocast(run):
                logits = run.forward(some)
            loss = phase_loss(logits, targets, run.phase)
            share = len(targets) / mean_over
            shared = loss if share == 1 else loss * share
            torch.autograd.backward(run.scaler.scale(shared))
        found.append((loss.detach(), logits.detach()))
    if parts == 1:
        return found[0]
    weighted = [loss * (len(logits) / len(labels)) for loss, logits in found]
    return torch.stack(weighted).sum(), torch.cat([logits for _, logits in found])
