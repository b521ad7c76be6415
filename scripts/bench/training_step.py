"""Compares the throughput of the training loop with a plain DataLoader loop, for each setting.

It trains a network on random 32 x 32 images, on one thread unless OMP_NUM_THREADS says otherwise:

    python scripts/bench/training_step.py [--model resnet20] [--batch 128] [--images 1024]
        [--repeats 3] [--device cpu] [--out step.json] [--profile table.txt]

The plain loop is the usual one: a Dataset of uint8 images, per-image torchvision transforms
(RandomCrop with padding, flip, convert, normalise), a DataLoader in the same process, a
``loss.item()`` at every step. Both loops do the same optimizer steps. Each figure is the best of
the repeats, all measured alternately in one process, in images per second of CPU time. On CUDA it
is wall time, of the last of three epochs, for steps recorded and not, all in channels_last, the
most important first; beside it are the share of the chip's dense bf16 peak (six operations per
multiply-add of an image, for forward and backward) and the peak memory. --out writes all of it as
JSON, after every figure. --profile measures nothing, but writes a table of where the time of a
short training of the fastest kind goes.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import torch
from result import Row, arguments, markdown, write
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from prunebench.datasets import Arrays, Data
from prunebench.errors import TrainingError
from prunebench.measure.costs import macs
from prunebench.models import ModelSpec
from prunebench.options import option
from prunebench.recipes import Phase
from prunebench.records.environment import device_name
from prunebench.training import loop
from prunebench.training.loop import train
from prunebench.training.recorder import recorder_of
from prunebench.training.resident import ResidentSplit
from prunebench.training.stage import Stage

ABOUT = """Training on random images of 32 x 32 with random crops and flips, compared with a
typical tutorial loop with the same optimizer steps: torchvision's transforms on one image at a
time, a DataLoader, `loss.item()` at every step, float32. Images per second of one thread's CPU
time (of wall time on CUDA), best of alternating rounds; rows "images alone" load images without
training and are compared with each other. bf16 and channels_last are settings of ours that the
plain loop does not have: compare equal settings."""
#: part of a chip's name -> dense bf16 operations per second by its maker; the first match counts
PEAKS = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12}
#: most images that the plain loop reads on CUDA: its rate would not change with more
FEW = 2560
#: epochs on CUDA: the first chooses algorithms and records, the last counts
EPOCHS = 3
FAST = "ours, bf16, channels_last"
PLAIN, ALONE = "plain loop, float32, contiguous", "images alone"
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
PHASE = Phase(
    epochs=1, batch_size=128, optimizer="sgd", lr=0.01, momentum=0.9, nesterov=True,
    weight_decay=5e-4, decay="all", schedule="constant", milestones=[], gamma=0.1,
    warmup_epochs=0.0, label_smoothing=0.0, precision="float32", channels_last=False,
)  # fmt: skip


def noise(count: int) -> Data:
    """Returns random images in the shape of CIFAR-10."""
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    split = Arrays(images, torch.randint(0, 10, (count,)))
    return Data(
        name="noise", train=split, val=Arrays(images[:0], split.labels[:0]), test=split,
        classes=10, mean=MEAN, std=STD, crop_padding=4, flip=True,
    )  # fmt: skip


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Returns one image at a time, transformed when read."""

    def __init__(self, split: Arrays) -> None:
        """Wraps `split`."""
        self.split = split
        self.transform = v2.Compose(
            [
                v2.RandomCrop(32, padding=4),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Returns a transformed image and its label."""
        return self.transform(self.split.images[index]), self.split.labels[index]


def in_memory(images: object) -> Arrays:
    """Returns `images`, which this benchmark made in memory."""
    assert isinstance(images, Arrays)
    return images


def plain_loop(network: nn.Module, split: Arrays, batch: int, device: torch.device) -> None:
    """Trains an epoch as tutorials do."""
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    network.train()
    total = 0.0
    for images, labels in DataLoader(Images(split), batch_size=batch, shuffle=True):
        logits = network(images.to(device))
        loss = functional.cross_entropy(logits, labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()


def plain_images(split: Arrays, batch: int) -> None:
    """Reads an epoch of images as the plain loop does."""
    for _ in DataLoader(Images(split), batch_size=batch, shuffle=True):
        pass


def our_images(data: Data, batch: int, device: torch.device) -> None:
    """Reads an epoch of images as our loop does."""
    split = ResidentSplit(data, in_memory(data.train), device=device, channels_last=True)
    for _ in split.training_batches(batch, seed=0, stage="bench", epoch=0):
        pass


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Returns the CPU seconds of `work` on a CPU, wall seconds on CUDA."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def epoch(
    network: nn.Module, data: Data, phase: Phase, device: torch.device, compiled: str
) -> float:
    """Trains, and returns the seconds of an epoch (on CUDA, the last one)."""
    stage = Stage(name="bench", seed=0, device=device, recorder=recorder_of(device, compiled))
    if device.type == "cuda":
        return train(network, data, replace(phase, epochs=EPOCHS), stage).history[-1].seconds
    return seconds(lambda: train(network, data, phase, stage), device)


def works(
    build: Callable[[], nn.Module], data: Data, batch: int, device: torch.device
) -> dict[str, tuple[int, Callable[[], float]]]:
    """Returns name -> number of images, and function that trains on them and returns seconds."""
    found: dict[str, tuple[int, Callable[[], float]]] = {}
    if device.type == "cuda":
        kinds = product(("bf16", "float32"), (1,), (", recorded", ", not recorded"))
    else:
        kinds = product(("float32", "bf16"), (0, 1), ("",))
    for precision, last, said in kinds:
        phase = replace(PHASE, batch_size=batch, precision=precision, channels_last=bool(last))
        name = f"ours, {precision}, {'channels_last' if last else 'contiguous'}{said}"
        compiled = "on" if said == ", recorded" else "off"
        found[name] = (len(data.train), partial(epoch, build(), data, phase, device, compiled))
    split = in_memory(data.train)
    if device.type == "cuda":
        split = Arrays(split.images[:FEW], split.labels[:FEW])
    some, plain = replace(data, train=split), build()
    for name, work in {
        PLAIN: lambda: plain_loop(plain, split, batch, device),
        f"{ALONE}, plain": lambda: plain_images(split, batch),
        f"{ALONE}, ours": lambda: our_images(some, batch, device),
    }.items():
        found[name] = (len(split), partial(seconds, work, device))
    return found


def profiled(work: Callable[[], object], device: torch.device) -> str:
    """Returns a table of what takes the most time in `work`."""
    with torch.profiler.profile() as seen:
        work()
    first = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    return str(seen.key_averages().table(sort_by=first, row_limit=40))


def measured(
    found: dict[str, tuple[int, Callable[[], float]]],
    repeats: int,
    device: torch.device,
    keep: Callable[[dict[str, dict[str, float]]], None],
) -> dict[str, dict[str, float]]:
    """Returns name -> best rate and peak memory; calls `keep` with the figures after each."""
    best: dict[str, dict[str, float]] = {}
    if device.type != "cuda":
        for _, work in found.values():
            work()  # warm up; on CUDA the first epochs do so
    for _ in range(repeats):
        for name, (images, work) in found.items():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            try:
                rate = images / work()
            except TrainingError as error:  # it cannot be recorded; continue with the others
                print(f"{name}: {error}")
                continue
            row = best.setdefault(name, {"images_per_second": 0.0})
            row["images_per_second"] = max(row["images_per_second"], rate)
            if device.type == "cuda":
                row["memory_mib"] = torch.cuda.max_memory_allocated() / 2**20
            keep(best)
    return best


def table(best: dict[str, dict[str, float]], operations: int, peak: float | None) -> list[Row]:
    """Returns a row for each loop: its rate, the ratio to the plain loop's, its share of the peak.

    Args:
        best: as `measured` returns it, or the figures so far.
        operations: per training image.
        peak: operations per second of the chip, if known.
    """
    rows = []
    for name, found in best.items():
        rate, alone = found["images_per_second"], name.startswith(ALONE)
        first = f"{ALONE}, plain" if alone else PLAIN
        plain = best.get(first, next(iter(best.values())))["images_per_second"]
        row: Row = {"loop": name, "images/s": rate, "times as fast": rate / plain}
        if peak and not alone:
            row["% of the chip's peak"] = 100 * rate * operations / peak
        if "memory_mib" in found:
            row["memory, MiB"] = found["memory_mib"]
        rows.append(row)
    return rows


def main() -> None:
    """Prints the table."""
    parser = arguments(__doc__)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--profile", type=Path)
    asked = parser.parse_args()
    loop.TIMED_FROM = 0  # time cuDNN's algorithms, as a longer training would
    device, data = (
        torch.device(asked.device),
        noise(min(FEW, asked.images) if asked.profile else asked.images),
    )

    def build() -> nn.Module:
        return option("model", asked.model, ModelSpec).build(data.shape, 10).to(device)

    operations = 6 * macs(build(), torch.zeros(1, *data.shape, device=device))
    chip = device_name(device)
    peak = next((rate for name, rate in PEAKS.items() if name in chip), None)
    title = f"Training {asked.model}, batch {asked.batch}, {asked.images} images"

    def keep(best: dict[str, dict[str, float]]) -> None:
        write(asked, title, ABOUT, table(best, operations, peak), str(device))

    if asked.profile:
        found = works(build, data, asked.batch, device)
        work = next(work for name, (_, work) in found.items() if FAST in name)
        asked.profile.write_text(profiled(work, device))
        return
    best = measured(works(build, data, asked.batch, device), asked.repeats, device, keep)
    print(f"{title}, {chip}, {torch.get_num_threads()} threads\n")
    print(markdown(table(best, operations, peak)))


if __name__ == "__main__":
    main()
