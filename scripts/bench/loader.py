"""Compares the speed of dataset=folder with torchvision's ImageFolder and a plain DataLoader.

    python scripts/bench/loader.py TREE [--workers 2] [--rounds 5] [--images 1000]

TREE holds a folder of images for each class. Both make augmented, shuffled, normalised batches of
128 x 3 x 224 x 224 floats on the CPU, alternately. It prints images per second, the median of the
rounds' ratios, and the peak memory of all processes together in two epochs of ours.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from result import Row, arguments, publish
from torch.utils.data import DataLoader, Subset
from torchvision import datasets
from torchvision.transforms import v2

from prunebench.datasets import Data, DatasetSpec
from prunebench.options import option
from prunebench.training.batches import split_on
from prunebench.training.split import Split

BATCH = 128
ABOUT = """`dataset=folder` compared with `ImageFolder`, v2 transforms and a DataLoader:
augmented, shuffled, normalised batches of 128 x 3 x 224 x 224. Images per second of wall time, so
other work on the machine counts; both alternate, and the ratio is the median over the rounds.
Memory is that of all our processes together."""


def ours(data: Data, workers: int) -> Split:
    """Returns our split; its loader processes start with the first batch."""
    loading = replace(data.train.loading, workers=workers)  # type: ignore[union-attr]
    return split_on(torch.device("cpu"), data, replace(data.train, loading=loading))  # type: ignore[arg-type]


def plain(path: str, data: Data, workers: int) -> DataLoader[Any]:
    """Returns the loader that a user of torchvision would write."""
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(224),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(data.mean, data.std),
        ]
    )
    images = datasets.ImageFolder(path, transform)
    some = Subset(images, list(range(min(len(images), len(data.train)))))
    return DataLoader(
        some, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )


def rate(batches: Iterable[Any]) -> float:
    """Returns images per second of wall time."""
    start, seen = time.perf_counter(), 0
    for images, _ in batches:
        seen += len(images)
    return seen / (time.perf_counter() - start)


def resident(pid: int) -> int:
    """Returns the proportional memory (PSS) of a process and its children, in bytes."""
    total = 0
    for path in [f"/proc/{pid}", *(f"/proc/{child}" for child in children(pid))]:
        lines = Path(path, "smaps_rollup").read_text().splitlines()
        total += next(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def children(pid: int) -> list[str]:
    """Returns the ids of the children of process `pid`."""
    return [
        child
        for thread in Path(f"/proc/{pid}/task").iterdir()
        for child in (thread / "children").read_text().split()
    ]


def peak(batches: Iterable[Any]) -> float:
    """Returns the peak memory while batches are read, in MiB."""
    return max(resident(os.getpid()) for _ in batches) / 2**20


def compare(
    turns: dict[str, Callable[[int], Iterable[Any]]], rounds: int
) -> dict[str, list[float]]:
    """Returns name -> images per second, round by round; the first round only warms up."""
    found: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds + 1):
        for name, turn in turns.items():
            speed = rate(turn(number))
            if number:
                found[name].append(speed)
    return found


def main() -> None:
    """Compares speed and memory, and prints them."""
    parser = arguments(__doc__)
    parser.add_argument("tree")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=1000)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cut = {"val_size": 0, "test_size": 0, "train_size": asked.images}
    data = option("dataset", "folder", DatasetSpec, path=asked.tree, **cut).suited(None).load()
    split, loader = ours(data, asked.workers), plain(asked.tree, data, asked.workers)

    def epoch(number: int) -> Iterable[Any]:
        return split.training_batches(BATCH, seed=0, stage="bench", epoch=number)

    found = compare({"ours": epoch, "torchvision": lambda _: loader}, asked.rounds)
    ratios = [a / b for a, b in zip(found["ours"], found["torchvision"], strict=True)]
    fresh = ours(data, asked.workers)
    first, second = (
        peak(fresh.training_batches(BATCH, seed=0, stage="memory", epoch=epoch)) for epoch in (0, 1)
    )
    row: Row = {
        "workers": asked.workers,
        "torchvision, images/s": median(found["torchvision"]),
        "prunebench, images/s": median(found["ours"]),
        "times as fast": median(ratios),
        "from, to": f"{min(ratios):.2f}, {max(ratios):.2f}",
        "memory, MiB": first,
        "second epoch": second,
    }
    publish(asked, f"Reading {len(data.train):,} JPEG files during training", ABOUT, [row])


if __name__ == "__main__":
    main()
