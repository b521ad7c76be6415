"""Does one step of the training loop: forward, backward, update."""

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

#: precision -> dtype of the forward pass
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
    """Announces the step to the observers, and seeds its draws from (seed, stage, epoch, step)."""
    for observer in run.stage.observers:
        observer.before_step(run.epoch, run.step, images)
    draws = (run.epoch, run.step, *distributed.own_draws())
    seed_draws(seed_for(run.stage.seed, run.stage.name, "step", *draws), run.stage.device)


def count_step(run: Training, images: int) -> None:
    """Does what a step leaves outside its recording: the moving average, and the images seen."""
    if run.average is not None:
        run.average.update_parameters(run.network)
    run.tally.seen += images


def learn(run: Training, images: Tensor, labels: Tensor, step: int | Tensor) -> None:
    """Updates the weights by one batch, and counts the loss and the correct answers.

    It all happens on the device, in the same order everywhere: on CUDA this function is recorded.

    Args:
        run: changed in place.
        images: the batch, or this process's part of it.
        labels: of these images.
        step: within the epoch; a tensor on the device if the step is recorded.
    """
    stage, phase = run.stage, run.phase
    run.optimizer.zero_grad()
    # gradients are averaged over processes, whose parts may differ by an image: weigh by images
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
    # a list, since any() of a generator would stop at the first observer that ends the phase
    run.over = any([observer.after_step(moment) for observer in stage.observers])
    run.tally.add(step, loss, logits, labels)


def autocast(run: Training) -> torch.autocast:
    """Returns the autocast context of the forward pass."""
    half = HALF.get(run.phase.precision)
    return torch.autocast(run.stage.device.type, half, enabled=half is not None)


def _gradients(
    run: Training, images: Tensor, labels: Tensor, mean_over: float
) -> tuple[Tensor, Tensor]:
    """Adds up the gradients of the batch, part by part; returns its mean loss and its logits."""
    # batch norm needs at least two images in a part
    parts = max(1, min(run.phase.accumulate, len(labels) // 2))
    if run.phase.sync_batchnorm and run.phase.accumulate > 1:  # processes wait at every part
        parts = int(distributed.lowest(torch.tensor(parts, device=labels.device)))
    found: list[tuple[Tensor, Tensor]] = []
    pairs = zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True)
    for number, (images_part, targets) in enumerate(pairs, start=1):
        with distributed.shared(run.forward, now=number == parts):
            with autocast(run):
                logits = run.forward(images_part)
            loss = phase_loss(logits, targets, run.phase)
            share = len(targets) / mean_over
            shared = loss if share == 1 else loss * share
            torch.autograd.backward(run.scaler.scale(shared))
        found.append((loss.detach(), logits.detach()))
    if parts == 1:
        return found[0]
    weighted = [loss * (len(logits) / len(labels)) for loss, logits in found]
    return torch.stack(weighted).sum(), torch.cat([logits for _, logits in found])
