"""Compares the time of the oracle with a whole forward pass for every channel.

Both mask the same channels and must give exactly equal scores. One process, one thread; CPU seconds
of one run each.

    python scripts/bench/oracle.py [--model resnet20] [--images 64] [--every 1]
"""

from __future__ import annotations

from time import process_time
from unittest.mock import patch

import torch
from result import Row, arguments, publish
from torch import Tensor

from prunebench.analysis import beginning
from prunebench.channels import trace
from prunebench.criteria import Evidence
from prunebench.criteria.oracle import Oracle
from prunebench.models import ModelSpec
from prunebench.options import option

ABOUT = """The oracle masks one channel at a time. Ours runs the network from the masked layer on,
compared with running it from the beginning; the scores are equal to the last bit. One thread's CPU
time, once each."""


def timed(facts: Evidence) -> tuple[float, dict[str, Tensor]]:
    """Returns CPU seconds and the scores of every group."""
    start = process_time()
    ranks = Oracle(num_samples=facts.size).rank(facts)
    return process_time() - start, {name: rank.scores for name, rank in ranks.items()}


def main() -> None:
    """Runs both ways once, and checks that their scores are equal."""
    parser = arguments(__doc__)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--every", type=int, default=1, help="groups: each, every second, ...")
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
    with patch.object(beginning, "shared", lambda *_: {}), patch.object(beginning, "serves"):
        whole, expected = timed(facts)
    assert all(torch.equal(found[name], scores) for name, scores in expected.items())
    row: Row = {
        "model": options.model,
        "images": options.images,
        "channels": sum(group.size for group in groups),
        "whole forwards, s": whole,
        "prunebench, s": ours,
        "times as fast": whole / ours,
    }
    publish(options, "The oracle", ABOUT, [row])


if __name__ == "__main__":
    main()
