"""Compares the time of HRank and Taylor with that of the plain passes they cannot do without.

For HRank that is a forward pass over the same batches and the singular values of the same maps; for
Taylor a forward and backward pass over the same batches, with the gradients of all weights. One
process, one thread; CPU seconds, the least of several alternating runs.

    python scripts/bench/criteria.py [--model resnet20] [--images 256] [--repeats 5]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from result import Row, arguments, by_turns, publish
from torch import Tensor, nn

from prunebench.channels import ChannelGroup, ChannelMap, capture, trace
from prunebench.criteria import Criterion, Evidence
from prunebench.models import ModelSpec
from prunebench.options import option

ABOUT = """Each criterion compared with the passes over the same batches that it needs at least
(the floor): for HRank a forward and the singular values of its maps, for Taylor a forward and a
backward with the gradients of all weights. Taylor can be below the floor because it computes fewer
gradients. Seconds of one thread's CPU time, the minimum of several alternating rounds."""
CHUNK = 64
BATCH = 32


def forward(network: nn.Module, images: Tensor) -> None:
    """Does a plain forward pass without gradients."""
    with torch.no_grad():
        for some in torch.split(images, CHUNK):
            network(some)


def backward(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Does a plain forward and backward pass, and discards the gradients."""
    for some, targets in zip(torch.split(images, BATCH), torch.split(labels, BATCH), strict=True):
        loss = nn.functional.cross_entropy(network(some), targets)
        torch.autograd.grad(loss, list(network.parameters()))


def feature_maps(
    network: nn.Module, cmap: ChannelMap, groups: tuple[ChannelGroup, ...], images: Tensor
) -> list[Tensor]:
    """Returns the maps whose ranks HRank computes."""
    parts = torch.split(images, CHUNK)
    found = [capture(network, cmap, some, groups, "activation") for some in parts]
    return [maps for part in found for maps in part.values()]


def main() -> None:
    """Runs everything alternately."""
    parser = arguments(__doc__)
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

    runs = by_turns(
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
    found = {name: min(seconds) for name, seconds in runs.items()}
    floor = {name: "forward and backward" for name in found if name.startswith("taylor")}
    found["forward and singular values"] = found["forward"] + found["singular values"]
    rows: list[Row] = [
        {
            "criterion": name,
            "floor": least,
            "floor, s": found[least],
            "prunebench, s": found[name],
            "times the time": found[name] / found[least],
        }
        for name, least in {"hrank": "forward and singular values", **floor}.items()
    ]
    title = f"Criteria on {options.model}, {options.images} images"
    publish(options, title, ABOUT, rows)


if __name__ == "__main__":
    main()
