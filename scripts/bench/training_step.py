"""Throughput of the training loop against a plain DataLoader loop, and what each setting pays.

Trains ResNet-20 on random 32 x 32 images, one thread unless OMP_NUM_THREADS says otherwise:

    python scripts/bench/training_step.py [--images 1024] [--repeats 3] [--device cpu]

The plain loop is the usual one: a Dataset of uint8 images, per-image torchvision transforms
(RandomCrop with padding, flip, convert, normalise), a DataLoader in the same process, a
``loss.item()`` at every step. Both loops take the same optimizer steps. Each figure is the best
of the repeats, all measured in turn in one run, in images per second of CPU time (of wall time
on CUDA).
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from prunebench.datasets import Arrays, Data
from prunebench.models.resnet import Resnet
from prunebench.recipes import Phase
from prunebench.records.environment import device_name
from prunebench.training.loop import train
from prunebench.training.resident import ResidentSplit
from prunebench.training.stage import Stage

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
PHASE = Phase(
    epochs=1, batch_size=128, optimizer="sgd", lr=0.01, momentum=0.9, nesterov=True,
    weight_decay=5e-4, decay="all", schedule="constant", milestones=[], gamma=0.1,
    warmup_epochs=0.0, label_smoothing=0.0, precision="float32", channels_last=False,
)  # fmt: skip


def noise(count: int) -> Data:
    """Random images in the shape of CIFAR-10."""
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    split = Arrays(images, torch.randint(0, 10, (count,)))
    return Data(
        name="noise", train=split, val=Arrays(images[:0], split.labels[:0]), test=split,
        classes=10, mean=MEAN, std=STD, crop_padding=4, flip=True,
    )  # fmt: skip


class Images(Dataset[tuple[Tensor, Tensor]]):
    """One image at a time, transformed on the way."""

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
        """One transformed image and its label."""
        return self.transform(self.split.images[index]), self.split.labels[index]


def plain_loop(network: nn.Module, data: Data, device: torch.device) -> None:
    """An epoch as tutorials write it."""
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    network.train()
    total = 0.0
    for images, labels in DataLoader(Images(data.train), batch_size=128, shuffle=True):
        logits = network(images.to(device))
        loss = functional.cross_entropy(logits, labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()


def plain_images(data: Data) -> None:
    """The plain loop's images alone."""
    for _ in DataLoader(Images(data.train), batch_size=128, shuffle=True):
        pass


def our_images(data: Data, device: torch.device) -> None:
    """Our loop's images alone."""
    split = ResidentSplit(data, data.train, device=device, channels_last=True)
    for _ in split.training_batches(128, seed=0, stage="bench", epoch=0):
        pass


def seconds(work: Callable[[], None], device: torch.device) -> float:
    """CPU seconds of `work` on a CPU, wall seconds on CUDA."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    data = noise(options.images)

    def network() -> nn.Module:
        return Resnet(depth=20, shortcut="A", width=1.0).build(data.shape, 10).to(device)

    def ours(precision: str, channels_last: bool) -> Callable[[], None]:
        phase = replace(PHASE, precision=precision, channels_last=channels_last)
        net = network()
        return lambda: void(train(net, data, phase, Stage(name="bench", seed=0, device=device)))

    def void(_: object) -> None:
        return

    plain = network()
    works: dict[str, Callable[[], None]] = {
        "plain loop, float32, contiguous": lambda: plain_loop(plain, data, device),
        "ours, float32, contiguous": ours("float32", False),
        "ours, float32, channels_last": ours("float32", True),
        "ours, bf16, contiguous": ours("bf16", False),
        "ours, bf16, channels_last": ours("bf16", True),
        "images alone, plain": lambda: plain_images(data),
        "images alone, ours": lambda: our_images(data, device),
    }
    for work in works.values():
        work()  # warm up
    best = dict.fromkeys(works, float("inf"))
    for _ in range(options.repeats):
        for name, work in works.items():
            best[name] = min(best[name], seconds(work, device))
    print(f"{device_name(device)}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for name, least in best.items():
        first = "images alone, plain" if "alone" in name else "plain loop, float32, contiguous"
        rate = options.images / least
        print(f"{name:34s} {rate:10.0f} images/s  {best[first] / least:6.2f}x")


if __name__ == "__main__":
    main()
