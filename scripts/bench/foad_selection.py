"""Compares the time of FOAD's selection with an implementation like the authors'.

The latter is numpy code as in their utils.py: every kept channel against every channel still alive,
one `np.linalg.norm` over the images for each pair, a sorted list of scores for each kept channel;
t = 1, s = 0, rule v2023. It measures single layers on relu(randn) first, then with `--nets` whole
networks on images of CIFAR-10: MODEL with random weights, MODEL=CHECKPOINT with trained ones (in
which similar maps need a second, exact comparison). One process, one thread; CPU seconds, for ours
the median of several runs.

    python scripts/bench/foad_selection.py --nets vgg16 resnet20=resnet20-12fca82f.th \
      resnet56=resnet56-4bfd9763.th --data data
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from statistics import median

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from result import Row, arguments, by_turns, publish
from torch import Tensor, nn

from prunebench.analysis.similarity import similarity
from prunebench.channels import capture, trace
from prunebench.config import Run, load
from prunebench.criteria.foad import select
from prunebench.options.files import conf_dir
from prunebench.run import baseline
from prunebench.training.batches import split_on
from prunebench.training.split import Split

SAMPLES = 128
#: channels and side of single layers; the first is the most favourable
LAYERS = ((512, 4), (512, 2), (256, 8), (128, 16), (64, 32))
NORMALISATION = ["dataset.mean=[0.485,0.456,0.406]", "dataset.std=[0.229,0.224,0.225]"]
ABOUT = """The authors' way, in numpy as in their `utils.py`: a Python loop over pairs of channels
with one `np.linalg.norm` over 128 images for each. Ours: distances by matrix products, computed
again exactly where maps are nearly equal. Seconds of one thread's CPU time, once for theirs, the
median of several for ours. The speed-up depends on the maps: it is largest for a single layer of
512 channels of 4 x 4 and smallest for trained networks. "kept by one alone" counts the channels on
which the two disagree."""


def authors(features: Tensor) -> list[int]:
    """Returns the kept channels by a loop over pairs of channels, for t = 1 and s = 0."""
    size = features.shape[1]
    alive, kept = [True] * size, list[int]()
    for one in range(size):
        if not alive[one]:
            continue
        kept.append(one)
        mine = features[:, one].detach().numpy()
        scores = []
        for other in range(size):
            score = 0.0
            if alive[other] and other != one:
                theirs = features[:, other].detach().numpy()
                score = (1.0 / (1.0 + np.linalg.norm(mine - theirs, axis=(1, 2)))).mean()
            scores.append((other, score))
        scores.sort(key=lambda pair: pair[1], reverse=True)
        nearest = scores[0][0]
        if nearest not in kept:
            alive[nearest] = False
    return kept


def ours(layers: list[Tensor]) -> list[list[int]]:
    """Returns the kept channels of each layer."""
    return [select(similarity(maps), t=1, s=0.0, rule="v2023") for maps in layers]


def noise(channels: int, side: int) -> Tensor:
    """Returns maps of random numbers, rectified."""
    shape = (SAMPLES, channels, side, side)
    return torch.relu(torch.randn(shape, generator=torch.Generator().manual_seed(0)))


def loaded(net: str, data: str) -> tuple[nn.Module, Run, Split]:
    """Returns the network for `MODEL` or `MODEL=CHECKPOINT`, its run, and training images."""
    model, _, checkpoint = net.partition("=")
    words = ["name=bench", "method=foad", f"model={model}", f"dataset.root={data}"]
    if checkpoint:
        words += [f"baseline.checkpoint={checkpoint}", *NORMALISATION]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        run = load(compose("config", words), {})
    images = run.dataset.load()
    network = baseline.build(run, images).eval()
    if checkpoint:
        baseline.given(run, network, images)
    return network, run, split_on(torch.device("cpu"), images, images.train)


def maps_of(net: str, data: str) -> list[Tensor]:
    """Returns the maps that FOAD compares in a network on images of CIFAR-10."""
    network, run, split = loaded(net, data)
    images, _ = split.sample(SAMPLES, seed=0)
    cmap = trace(network, images[:1])
    found = capture(network, cmap, images[:], run.budget.select(cmap), "block")
    return [maps.contiguous() for maps in found.values()]


def cases(asked: Namespace) -> Iterator[tuple[str, list[Tensor]]]:
    """Yields the name of each case, and the maps of its layers."""
    for channels, side in LAYERS:
        told = f"one layer, {channels} channels of {side} x {side}, noise"
        yield told, [noise(channels, side)]
    for net in asked.nets:
        model, _, checkpoint = net.partition("=")
        maps = maps_of(net, asked.data)
        weights = "trained" if checkpoint else "random"
        yield f"all {len(maps)} layers of {model}, {weights} weights, CIFAR-10", maps


def main() -> None:
    """Runs the authors' way once and ours several times for each case."""
    parser = arguments(__doc__)
    parser.add_argument("--nets", nargs="*", default=[], metavar="MODEL[=CHECKPOINT]")
    parser.add_argument("--data", default="data", help="folder with CIFAR-10")
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    for name, layers in cases(asked):
        wanted: list[list[int]] = []
        [theirs] = by_turns({"": lambda: wanted.extend(map(authors, layers))}, 1)[""]  # noqa: B023
        mine = median(by_turns({"": lambda: ours(layers)}, asked.repeats)[""])  # noqa: B023
        found = ours(layers)
        differ = sum(len({*a} ^ {*b}) for a, b in zip(wanted, found, strict=True))
        rows.append(
            {
                "what": name,
                "authors' way, s": theirs,
                "prunebench, s": mine,
                "times as fast": theirs / mine,
                "channels kept": sum(map(len, found)),
                "kept by one alone": differ,
            }
        )
    publish(asked, "FOAD's selection", ABOUT, rows)


if __name__ == "__main__":
    main()
