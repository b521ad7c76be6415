"""Measures how random FOAD's choice is: the overlap of channels kept with different images.

This is the authors' figure (their harvest.py) for any network and data, chosen by the words of the
command. It prints for each number of images: the mean over layers and pairs of samples of
|A and B| / |A or B|, with A and B the channels kept; the least of them; and how many channels are
kept in all. The samples are training images.

    python scripts/bench/foad_stability.py model=resnet20 baseline.checkpoint=resnet20-12fca82f.th \
      'dataset.mean=[0.485,0.456,0.406]' 'dataset.std=[0.229,0.224,0.225]'
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import torch
from hydra import compose, initialize_config_dir

from prunebench.channels import trace
from prunebench.checkpoints.slimmed import tracing_image
from prunebench.config import load
from prunebench.criteria import Evidence
from prunebench.criteria.foad import Foad
from prunebench.options.files import conf_dir
from prunebench.reproducibility import seed_for
from prunebench.run import baseline
from prunebench.training.batches import split_on

Kept = Mapping[str, Sequence[int]]


def overlaps(draws: Sequence[Kept]) -> list[float]:
    """Returns the Jaccard overlap of each layer in each pair of draws."""
    return [
        len({*a[name]} & {*b[name]}) / len({*a[name]} | {*b[name]})
        for a, b in combinations(draws, 2)
        for name in a
    ]


def draws(words: Sequence[str], images: int, count: int) -> list[dict[str, tuple[int, ...]]]:
    """Returns layer -> channels kept, for each of `count` samples of `images` training images."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        run = load(compose("config", ["name=stability", "method=foad", *words]), {})
    criterion, cpu = run.criterion, torch.device("cpu")
    assert isinstance(criterion, Foad)
    data = run.dataset.load()
    network = baseline.build(run, data).eval()
    if baseline.given(run, network, data) is None:
        raise SystemExit("no trained weights: give baseline.checkpoint=FILE")
    cmap = trace(network, tracing_image(data.shape))
    groups, found = run.budget.select(cmap), []
    for draw in range(count):
        seed = seed_for(run.settings.seed, "stability", draw)
        some, labels = split_on(cpu, data, data.train).sample(images, seed=seed)
        facts = Evidence(network, cmap, groups, some, labels, seed)
        ranks = replace(criterion, num_samples=images).rank(facts)
        found.append({name: tuple(rank.kept or ()) for name, rank in ranks.items()})
    return found


def main() -> None:
    """Prints a line for each number of images."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("words", nargs="*", help="as of the command: model=resnet20 ...")
    parser.add_argument("--images", type=int, nargs="+", default=[16, 32, 64, 128, 256, 512])
    parser.add_argument("--draws", type=int, default=2)
    asked = parser.parse_intermixed_args()
    print("images  overlap  least  kept")
    for images in asked.images:
        found = draws(asked.words, images, asked.draws)
        shares = overlaps(found)
        kept = [sum(len(one) for one in draw.values()) for draw in found]
        told = "-".join(map(str, sorted({min(kept), max(kept)})))
        print(f"{images:6}  {sum(shares) / len(shares):7.3f}  {min(shares):5.2f}  {told}")


if __name__ == "__main__":
    main()
