"""Compares images and training steps per second with airbench's loader, made for speed records.

    pip install airbench
    python scripts/bench/cifar_loader.py [--model resnet20] [--batch 128] [--images 4096]
        [--repeats 3] [--device cpu]

airbench's loader crops and mirrors a whole epoch at once and normalises the data set once, in half
precision; ours works batch by batch on uint8. Both are followed by the same bf16 training steps:
airbench's in a bare loop without logs and checkpoints, ours in the product's training loop.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from result import Row, arguments, publish
from torch import nn
from torch.nn import functional
from training_step import PHASE, epoch, in_memory, noise, our_images, seconds

from prunebench.datasets import Data
from prunebench.models import ModelSpec
from prunebench.options import option

ABOUT = """Random images of 32 x 32 with crops and flips, channels_last, compared with airbench's
`CifarLoader` (the loader of CIFAR speed records, made for GPUs): loading alone, and loading with
bf16 steps of SGD. airbench's loader runs in a bare loop without log, checkpoint or validation,
ours in the full training loop. Images per second of one thread's CPU time (of wall time on CUDA),
medians of alternating epochs. The first epoch, in which airbench normalises all images, is left
out."""


def theirs(data: Data, batch: int, device: torch.device) -> Any:
    """Returns airbench's loader for the images of `data`, which it reads from a file."""
    from airbench.utils import CifarLoader

    split = in_memory(data.train)
    with tempfile.TemporaryDirectory() as folder:
        shown = split.images.permute(0, 2, 3, 1).contiguous()
        content = {"images": shown, "labels": split.labels, "classes": list("0123456789")}
        torch.save(content, Path(folder) / "train.pt")
        aug = {"flip": True, "translate": 4}
        return CifarLoader(folder, batch_size=batch, aug=aug, drop_last=False, gpu=device)


def read(batches: Iterable[Any]) -> None:
    """Reads an epoch."""
    for _ in batches:
        pass


def bare_epoch(
    network: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterable[Any], kind: str
) -> None:
    """Trains an epoch in a bare loop."""
    network.train()
    for images, labels in batches:
        with torch.autocast(kind, torch.bfloat16):
            logits = network(images.to(torch.bfloat16, memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def works(
    build: Callable[[], nn.Module], data: Data, batch: int, device: torch.device
) -> dict[str, Callable[[], float]]:
    """Returns name -> function that does an epoch and returns its seconds."""
    loader, network, own = theirs(data, batch, device), build(), build()
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    phase = replace(PHASE, batch_size=batch, precision="bf16", channels_last=True)
    how = "on" if device.type == "cuda" else "off"
    step = (network, optimizer, loader, device.type)
    return {
        "images, airbench": lambda: seconds(lambda: read(loader), device),
        "images, prunebench": lambda: seconds(lambda: our_images(data, batch, device), device),
        "training, airbench": lambda: seconds(lambda: bare_epoch(*step), device),
        "training, prunebench": lambda: epoch(own, data, phase, device, how),
    }


def main() -> None:
    """Compares images and training, and prints the rates."""
    parser = arguments(__doc__)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    device, data = torch.device(asked.device), noise(asked.images)

    def build() -> nn.Module:
        return option("model", asked.model, ModelSpec).build(data.shape, 10).to(device)

    turns = works(build, data, asked.batch, device)
    found: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(asked.repeats + 1):
        for name, work in turns.items():
            took = work()
            if number:
                found[name].append(asked.images / took)
    rows: list[Row] = []
    for what in ("images", "training"):
        other, own = found[f"{what}, airbench"], found[f"{what}, prunebench"]
        row: Row = {"what": what if what == "images" else f"training {asked.model}"}
        row |= {"airbench, images/s": median(other), "prunebench, images/s": median(own)}
        row |= {"times as fast": median(a / b for a, b in zip(own, other, strict=True))}
        rows.append(row)
    title = f"Compared with airbench's loader, batch {asked.batch}, {asked.images:,} images"
    publish(asked, title, ABOUT, rows, asked.device)


if __name__ == "__main__":
    main()
