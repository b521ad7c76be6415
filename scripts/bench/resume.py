"""Measures what it costs to save a training after every epoch, and to stop and resume it.

    python scripts/bench/resume.py [--models resnet20 resnet56 vgg16]

It trains four epochs of a few steps on random images in three ways: without a checkpoint; saved
after each epoch; and saved, stopped after the second epoch and resumed, which must give exactly the
same weights. CPU time of one thread, medians of alternating runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from result import Row, arguments, by_turns, publish
from torch import Tensor, nn
from training_step import PHASE, noise

from prunebench.checkpoints import Checkpoint
from prunebench.models import ModelSpec
from prunebench.options import option
from prunebench.training.loop import train
from prunebench.training.stage import Stage

ABOUT = """Four short epochs with batches of 64 images, run without checkpoints, compared with
saving after each epoch, and with stopping after the second epoch and resuming from its checkpoint
in a new training. All three give the same weights, bit for bit. One thread's CPU time, medians of
alternating rounds. An epoch of CIFAR-10 has 782 such steps, and a run saves only every
`run.checkpoint_seconds`."""
EPOCHS, BATCH = 4, 64


class Stopped(Exception):
    """Raised to stop a training after a save."""


class Stopping(Checkpoint):
    """A checkpoint that stops the training after a number of saves."""

    def __init__(self, path: Path, saves: int) -> None:
        """Takes the file, and the number of saves; 0 never stops."""
        super().__init__(path, 0)
        self.left = saves

    def save(self, state: Mapping[str, Any]) -> None:
        """Saves, and stops if it was the last."""
        super().save(state)
        self.left -= 1
        if not self.left:
            raise Stopped


def trained(network: nn.Module, steps: int, checkpoint: Checkpoint | None) -> dict[str, Tensor]:
    """Returns the weights after a training, or after the rest of a resumed one."""
    own, phase = deepcopy(network), replace(PHASE, epochs=EPOCHS, batch_size=BATCH)
    torch.manual_seed(0)
    stage = Stage(name="bench", seed=0, device=torch.device("cpu"), checkpoint=checkpoint)
    train(own, noise(steps * BATCH), phase, stage)
    return own.state_dict()


def resumed(network: nn.Module, steps: int, path: Path) -> dict[str, Tensor]:
    """Returns the weights of a training that was stopped halfway and resumed."""
    path.unlink(missing_ok=True)
    try:
        trained(network, steps, Stopping(path, EPOCHS // 2))
    except Stopped:
        return trained(network, steps, Checkpoint(path, 0))
    raise AssertionError("it was not stopped")


def saved(network: nn.Module, steps: int, path: Path) -> dict[str, Tensor]:
    """Returns the weights of a training that was saved after each epoch."""
    path.unlink(missing_ok=True)
    return trained(network, steps, Checkpoint(path, 0))


def compared(model: str, steps: int, repeats: int, path: Path) -> Row:
    """Returns the times of all three ways."""
    torch.manual_seed(0)
    network = option("model", model, ModelSpec).build((3, 32, 32), 10)
    works: dict[str, Callable[[], dict[str, Tensor]]] = {
        "whole": partial(trained, network, steps, None),
        "saved": partial(saved, network, steps, path),
        "resumed": partial(resumed, network, steps, path),
    }
    first, *others = (work() for work in works.values())
    for other in others:
        assert all(torch.equal(first[name], value) for name, value in other.items())
    found = {name: median(times) for name, times in by_turns(works, repeats).items()}
    a_save = (found["saved"] - found["whole"]) / EPOCHS
    return {
        "model": model,
        "steps an epoch": steps,
        "in one go, s": found["whole"],
        "saved each epoch, s": found["saved"],
        "times the time, saved": found["saved"] / found["whole"],
        "stopped and resumed, s": found["resumed"],
        "times the time, resumed": found["resumed"] / found["whole"],
        "a save, in steps": a_save / found["whole"] * EPOCHS * steps,
    }


def main() -> None:
    """Compares all on each model."""
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=["resnet20", "resnet56", "vgg16"])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        rows = [compared(model, asked.steps, asked.repeats, path) for model in asked.models]
    publish(asked, "Checkpoints and resuming", ABOUT, rows)


if __name__ == "__main__":
    main()
