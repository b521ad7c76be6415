"""Contains the one training loop, which baselines, fine-tuning and pruning in training share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from math import prod

import torch
from torch import Tensor, nn

from prunebench.datasets import Data
from prunebench.errors import TrainingError
from prunebench.interruption import held
from prunebench.recipes import Phase
from prunebench.reproducibility import cuda_math
from prunebench.tracking.progress import Task
from prunebench.training import distributed
from prunebench.training.aligned import align
from prunebench.training.batches import split_on
from prunebench.training.forward import Forward
from prunebench.training.heads import bare
from prunebench.training.optim import averaged, build_optimizer, learning_rate
from prunebench.training.recorded import RecordedEpochs, count_batch, recordable
from prunebench.training.stage import EpochRecord, Stage, TrainResult
from prunebench.training.state import Training
from prunebench.training.step import HALF, autocast, train_step
from prunebench.training.synchronised import synchronised
from prunebench.training.tally import NEVER, Lookout, Tally

#: steps between two checks that every loss so far was finite
LOOK_EVERY = 50
#: from so many steps on, timing cuDNN's algorithms pays: for VGG-16 it took 4 s on an H200
TIMED_FROM = 2000
#: pixels per batch of validation, unless the batches of training are larger
VAL_PIXELS = 500 * 32 * 32


def train(network: nn.Module, data: Data, phase: Phase, stage: Stage) -> TrainResult:
    """Trains `network` in place and leaves it with its last weights.

    The batches, augmentation and dropout of a step depend only on (seed, stage name, epoch, step),
    so on a CPU a training that continues from its checkpoint ends bit for bit where it would have
    ended without the interruption.

    Args:
        network: with its head, if it has one. Moved to the stage's device; afterwards in contiguous
            memory format, so that later stages compute the same as with reloaded weights.
        data: ``data.train`` is trained on, ``data.val`` picks the best epoch; the rest is not read.
        phase: how to train.
        stage: where to train, and who receives losses and accuracies.

    Raises:
        TrainingError: a loss or a weight is not finite; the message names the place.
        CheckpointError: the checkpoint is damaged or belongs to another training.
    """
    run, recorded = _prepare(network, data, phase, stage)
    total, done = phase.epochs * run.steps, run.epoch * run.steps + run.step
    with (
        held(stage.checkpoint is not None),
        synchronised(network, phase),
        cuda_math(exact=False, timed=total - done >= TIMED_FROM),
        stage.progress.task(stage.name, total, done=done) as task,
    ):
        while run.epoch < phase.epochs and not (run.over and run.step == 0):
            _train_epoch(run, recorded, task)
            _close_epoch(run, recorded, task)
    for observer in stage.observers:
        observer.finished()
    if run.average is not None:
        network.load_state_dict(run.shown.state_dict())
    set_memory_format(network, torch.contiguous_format)
    return TrainResult(
        history=tuple(run.history),
        best=run.best,
        best_state=run.best_state and {name: t.cpu() for name, t in run.best_state.items()},
        seconds=sum(record.seconds for record in run.history),
    )


def set_memory_format(network: nn.Module, layout: torch.memory_format) -> None:
    """Lays out all 4-d parameters and buffers in `layout`, in place.

    Their strides are canonical afterwards. A 1x1 kernel fits both formats, so its strides would
    otherwise depend on its history, and a backend may choose its algorithm, hence its rounding, by
    the strides.
    """
    for tensor in [*network.parameters(), *network.buffers()]:
        if tensor.dim() == 4:
            tensor.data = torch.empty_like(tensor, memory_format=layout).copy_(tensor.data)


def _prepare(
    network: nn.Module, data: Data, phase: Phase, stage: Stage
) -> tuple[Training, RecordedEpochs | None]:
    """Moves everything to the device and continues from the checkpoint, if there is one.

    Returns:
        The training; and its recorded epochs, None if its steps cannot be recorded.
    """
    network.to(stage.device)
    layout = torch.channels_last if phase.channels_last else torch.contiguous_format
    set_memory_format(network, layout)
    device, last = stage.device, phase.channels_last
    train = split_on(device, data, data.train, channels_last=last)
    val = split_on(device, data, data.val, channels_last=last)
    records = recordable(stage, phase, train, val)
    run = Training(
        network=network,
        forward=network,
        phase=phase,
        stage=stage,
        optimizer=build_optimizer(network, phase, recorded=records),
        train=train,
        val=val,
        tally=Tally(device),
        scaler=torch.amp.GradScaler(device.type, enabled=phase.precision == "fp16"),
        average=averaged(network, phase.ema),
    )
    for observer in stage.observers:
        observer.start(bare(network), run.optimizer)
    run.resume()
    replica = distributed.replicate(network)
    alone = replica is network
    half, aligned = HALF.get(phase.precision), None
    if records and half and not stage.observers:  # observers must not see padded channels
        aligned = align(network, run.train.sample(8, seed=stage.seed)[0][:8])
    run.forward = Forward(network, half, aligned) if alone else replica
    return run, RecordedEpochs(run) if records else None


def _train_epoch(run: Training, recorded: RecordedEpochs | None, task: Task) -> None:
    """Does the remaining steps of the current epoch."""
    run.network.train()
    stage = run.stage
    lookout = Lookout() if stage.device.type == "cuda" and distributed.size() == 1 else None
    for _ in recorded.steps() if recorded else _steps(run):
        run.train.share_damage()
        run.step += 1
        task.advance()
        if run.over:
            break
        if run.step % LOOK_EVERY == 0 and (
            lookout is None or lookout.glance(run.tally.bad_step) < NEVER
        ):
            _check_loss(run)
        if distributed.from_first(stage.checkpoint is not None and stage.checkpoint.due()):
            _check_loss(run)
            run.save()


def _steps(run: Training) -> Iterator[None]:
    """Does the remaining steps of the current epoch, one per iteration."""
    seed, stage, size = run.stage.seed, run.stage.name, run.phase.batch_size
    batches = run.train.training_batches(
        size, seed=seed, stage=stage, epoch=run.epoch, start=run.step
    )
    for images, labels in batches:
        train_step(run, images, labels)
        yield


def _check_loss(run: Training) -> None:
    """Raises TrainingError if a loss since the epoch began was not finite."""
    step = int(run.tally.over_all().bad_step)
    if step < NEVER:
        place = f"epoch {run.epoch + 1} of {run.phase.epochs}, step {step + 1} of {run.steps}"
        raise _diverged(run, f"the loss is not finite at {place}")


def _check_weights(run: Training) -> None:
    """Raises TrainingError if a parameter is not finite, which the last step can still cause."""
    finite = torch.stack([weight.isfinite().all() for weight in run.network.parameters()]).tolist()
    if not all(finite):
        name = [name for name, _ in run.network.named_parameters()][finite.index(False)]
        place = f"after epoch {run.epoch + 1} of {run.phase.epochs}"
        raise _diverged(run, f"the weights of '{name}' are not finite {place}")


def _diverged(run: Training, what: str) -> TrainingError:
    """Returns the error, with advice on what to change."""
    phase = run.phase
    half = "" if phase.precision == "float32" else " or set precision=float32"
    return TrainingError(
        f"{run.stage.name}: {what}; lower the recipe's lr={phase.lr:g}, "
        f"raise warmup_epochs={phase.warmup_epochs:g}{half}"
    )


def _close_epoch(run: Training, recorded: RecordedEpochs | None, task: Task) -> None:
    """Validates, keeps the best weights, logs, and saves a checkpoint when one is due.

    Waits for the device. The state after the last epoch is always saved; in between, an epoch on a
    GPU may take less time than writing the weights.
    """
    _check_loss(run)
    _check_weights(run)
    with ExitStack() as block:
        for observer in run.stage.observers if len(run.val) else ():
            block.enter_context(observer.validating())
        correct, seen = _count_correct(run, recorded)
        best = seen and (run.best is None or correct > run.best.val_correct)
        best_state = _copy(run.shown) if best else run.best_state
    tally = run.tally.over_all()
    run.tick()
    record = EpochRecord(
        epoch=run.epoch + 1,
        lr=learning_rate(run.phase, run.epoch * run.steps + run.step - 1, run.steps),
        loss=float(tally.loss) / tally.seen,
        correct=int(tally.correct),
        seen=tally.seen,
        val_correct=correct,
        val_seen=seen,
        seconds=run.seconds,
    )
    run.history.append(record)
    if best:
        run.best, run.best_state = record, best_state
    run.epoch, run.step, run.seconds = run.epoch + 1, 0, 0.0
    run.tally.clear()
    run.stage.log(record.row(run.stage.name, run.phase.epochs))
    task.epoch(_headline(record, run.phase.epochs))
    checkpoint, ends = run.stage.checkpoint, run.over or run.epoch == run.phase.epochs
    if distributed.from_first(checkpoint is not None and (ends or checkpoint.due())):
        run.save()


def _headline(record: EpochRecord, epochs: int) -> dict[str, object]:
    """Returns the figures of an epoch that the user sees, formatted."""
    row: dict[str, object] = {
        "epoch": f"{record.epoch}/{epochs}",
        "lr": record.lr,
        "loss": record.loss,
        "train": f"{100 * record.correct / record.seen:.2f} %",
    }
    if record.val_seen:
        row["val"] = f"{100 * record.val_correct / record.val_seen:.2f} %"
    return row


def _count_correct(run: Training, recorded: RecordedEpochs | None) -> tuple[int, int]:
    """Returns how many validation images the network gets right, and how many there are.

    It computes in the precision of the training.
    """
    run.shown.eval()
    size = max(run.phase.batch_size, VAL_PIXELS // prod(run.val.shape[1:]))
    if recorded:
        return recorded.count_correct(size)
    counts = torch.zeros(2, dtype=torch.int64, device=run.stage.device)
    with torch.inference_mode(), autocast(run):
        for images, labels in run.val.batches(size, shared_out=True):
            count_batch(run, images, labels, counts)
    run.val.share_damage()
    correct, seen = distributed.total(counts).tolist()
    return correct, seen


def _copy(network: nn.Module) -> dict[str, Tensor]:
    """Returns a contiguous copy of the state dict on the same device, as moving it is slow."""
    return {
        name: value.detach().clone(memory_format=torch.contiguous_format)
        for name, value in network.state_dict().items()
    }
