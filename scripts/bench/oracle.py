"""The oracle against whole forwards for every channel, in one process, on one thread.

Both mask the same channels and must give equal scores, to the last bit. Prints CPU seconds (process
time) of one run each and their ratio; `--out` writes them as JSON.

    python scripts/bench/oracle.py [--model resnet20] [--images 64] [--every 1] [--out oracle.json]
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from time import process_time
from unittest.mock import patch

import torch
from torch import Tensor

from prunebench.analysis import beginning
from prunebench.channels import trace
from prunebench.criteria import Evidence
from prunebench.criteria.oracle import Oracle
from prunebench.models import ModelSpec
from prunebench.options import option


def timed(facts: Evidence) -> tuple[float, dict[str, Tensor]]:
    """Returns CPU seconds and the scores of every group."""
    start = process_time()
    ranks = Oracle(num_samples=facts.size).rank(facts)
    return process_time() - start, {name: rank.scores for name, rank in ranks.items()}


def main() -> None:
    """Runs both once and prints the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--every", type=int, default=1, help="groups: each, every second, ...")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = option("model", options.model, ModelSpec).build((3, 32, 32), 10).eval()
    images = torch.randn(options.images, 3, 32, 32)
    labels = torch.randint(0, 10, (options.images,))
    cmap = trace(network, images[:1])
    groups = tuple(group for group in cmap.groups if not group.residual)[:: options.every]
    facts = Evidence(network, cmap, groups, images, labels, 0)
    ours, found = timed(facts)
    with patch.object(beginning, "shared", lambda run, *_: run):
        whole, expected = timed(facts)
    assert all(torch.equal(found[name], scores) for name, scores in expected.items())
    figures = {
        "model": options.model,
        "images": options.images,
        "channels": sum(group.size for group in groups),
        "whole_forwards_cpu_s": whole,
        "prunebench_cpu_s": ours,
        "ratio": whole / ours,
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
    }
    for name, value in figures.items():
        print(f"{name:<22}{value:.2f}" if isinstance(value, float) else f"{name:<22}{value}")
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
