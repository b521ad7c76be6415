"""FOAD's selection against the naive pairwise loop, in one process, on one thread.

Features are relu(randn), generator seed 0; t = 1, s = 0, rule v2023. The naive loop scores every
kept channel against every channel still alive, pair by pair, as the published code does. Both must
keep the same channels. Prints CPU seconds (process time): of ours the least of several runs.

    python scripts/bench/foad_selection.py [--samples 128] [--channels 512] [--side 4] [--repeats 7]
"""

from __future__ import annotations

import argparse
from time import process_time

import torch
from torch import Tensor

from prunebench.analysis.similarity import similarity
from prunebench.criteria.foad import select


def naive(features: Tensor, *, t: int, s: float) -> list[int]:
    """Returns the kept channels by a Python loop over pairs of channels."""
    size = features.shape[1]
    kept: list[int] = []
    removed: set[int] = set()
    for one in range(size):
        if one in removed:
            continue
        kept.append(one)
        scores = [0.0] * size
        for other in range(size):
            if other != one and other not in removed:
                difference = features[:, one] - features[:, other]
                distance = (difference**2).sum((1, 2)).sqrt()
                scores[other] = (1 / (1 + distance)).mean().item()
        for other in sorted(range(size), key=lambda index: -scores[index])[:t]:
            if other not in kept and scores[other] >= s:
                removed.add(other)
    return kept


def main() -> None:
    """Runs both once each, ours several times, and prints the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--side", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    shape = (options.samples, options.channels, options.side, options.side)
    features = torch.relu(torch.randn(shape, generator=torch.Generator().manual_seed(0)))

    start = process_time()
    expected = naive(features, t=1, s=0.0)
    naive_seconds = process_time() - start

    ours = []
    for _ in range(options.repeats):
        start = process_time()
        kept = select(similarity(features), t=1, s=0.0, rule="v2023")
        ours.append(process_time() - start)
        assert kept == expected, "the two keep different channels"
    print(f"features {list(shape)}: both keep the same {len(kept)} channels")
    print(f"naive pairwise loop {naive_seconds:8.3f} CPU s")
    print(f"prunebench          {min(ours):8.4f} CPU s (least of {len(ours)})")
    print(f"ratio               {naive_seconds / min(ours):8.1f}")


if __name__ == "__main__":
    main()
