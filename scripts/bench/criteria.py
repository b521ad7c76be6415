"""HRank and Taylor against the plain passes they cannot do without, in one process, on one thread.

HRank: one forward pass over the same batches, plus singular values of the same maps. Taylor: one
forward and backward pass over the same batches, all weights' gradients included. Prints CPU seconds
(process time), the least of several runs taken in turns, and the ratio.

    python scripts/bench/criteria.py [--model resnet20] [--images 256] [--repeats 5]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import process_time

import torch
from torch import Tensor, nn

from prunebench.channels import ChannelGroup, ChannelMap, capture, trace
from prunebench.criteria import Criterion, Evidence
from prunebench.models import ModelSpec
from prunebench.options import option

CHUNK = 64
BATCH = 32


def forward(network: nn.Module, images: Tensor) -> None:
    """One plain pass without gradients."""
    with torch.no_grad():
        for some in torch.split(images, CHUNK):
            network(some)


def backward(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """One plain pass with gradients, which are dropped."""
    for some, targets in zip(torch.split(images, BATCH), torch.split(labels, BATCH), strict=True):
        loss = nn.functional.cross_entropy(network(some), targets)
        torch.autograd.grad(loss, list(network.parameters()))


def feature_maps(
    network: nn.Module, cmap: ChannelMap, groups: tuple[ChannelGroup, ...], images: Tensor
) -> list[Tensor]:
    """The maps whose ranks HRank wants."""
    parts = torch.split(images, CHUNK)
    found = [capture(network, cmap, some, groups, "activation") for some in parts]
    return [maps for part in found for maps in part.values()]


def least(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """CPU seconds of each, the least of several runs in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = process_time()
            run()
            seconds[name].append(process_time() - start)
    return {name: min(found) for name, found in seconds.items()}


def main() -> None:
    """Runs all in turns and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = option("model", options.model, ModelSpec).build((3, 32, 32), 10).eval()
    images = torch.randn(options.images, 3, 32, 32)
    labels = torch.randint(0, 10, (options.images,))
    cmap = trace(network, images[:1])
    groups = tuple(group for group in cmap.groups if not group.residual)
    facts = Evidence(network, cmap, groups, images, labels, 0)
    maps = feature_maps(network, cmap, groups, images)

    def criterion(name: str, **changes: object) -> Callable[[], object]:
        made = option("criterion", name, Criterion, num_samples=options.images, **changes)
        return lambda: made.rank(facts)

    found = least(
        {
            "forward": lambda: forward(network, images),
            "singular values": lambda: [torch.linalg.svdvals(some) for some in maps],
            "hrank": criterion("hrank", chunk=CHUNK),
            "forward and backward": lambda: backward(network, images, labels),
            "taylor gate": criterion("taylor", form="gate", batch=BATCH),
            "taylor weight": criterion("taylor", form="weight", batch=BATCH),
            "taylor activation": criterion("taylor", form="activation", batch=BATCH),
        },
        options.repeats,
    )
    for name, seconds in found.items():
        print(f"{name:<22}{seconds:8.3f} s")
    floor = found["forward"] + found["singular values"]
    print(f"hrank / (forward + singular values): {found['hrank'] / floor:.2f}")
    for form in ("gate", "weight", "activation"):
        ratio = found[f"taylor {form}"] / found["forward and backward"]
        print(f"taylor {form} / forward and backward: {ratio:.2f}")


if __name__ == "__main__":
    main()
