"""Measures the peak memory of criteria that look at images, on VGG-16 at 224 x 224.

    python scripts/bench/memory.py TREE [--images 4 12] [--criteria foad thinet ...]

TREE holds a folder of images for each class; samples are streamed from it as in a run. Every figure
comes from a fork of a process that holds the libraries and the network, on one thread; the first
row is a forward of as many images, in the same chunks: on this network 10 images, or 4 where a
backward follows. It takes two minutes of CPU time.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import resource
import sys
import time
from typing import Any

import torch
from result import Row, arguments, publish
from torchvision import models

from prunebench.analysis.chunks import images_at_once
from prunebench.channels import trace
from prunebench.checkpoints.slimmed import tracing_image
from prunebench.contracts import Evidence
from prunebench.criteria import Criterion
from prunebench.criteria.ranked import ranked
from prunebench.datasets import DatasetSpec
from prunebench.options import option
from prunebench.training.batches import split_on

ABOUT = """Memory of a process, including libraries and weights, before the criterion and at its
peak; seconds of one thread's CPU time, compared with a forward of the same images in the same
chunks."""
FORWARD = "a forward alone"
CRITERIA: dict[str, dict[str, Any]] = {
    FORWARD: {},
    "foad": {},
    "thinet": {},
    "hrank": {},
    "apoz": {},
    "taylor": {"form": "activation"},
    "taylor, weight": {"form": "weight"},
}


def peak() -> float:
    """Returns the peak memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def evidence(tree: str, count: int) -> Evidence:
    """Returns VGG-16 with `count` images of `tree`, which are read when needed."""
    torch.manual_seed(0)
    cut = {"val_size": 0, "test_size": 0}
    data = option("dataset", "folder", DatasetSpec, path=tree, **cut, workers=0).suited(None).load()
    network = models.vgg16(num_classes=max(2, data.classes)).eval()
    cmap = trace(network, tracing_image(data.shape))
    images, labels = split_on(torch.device("cpu"), data, data.train).sample(count, seed=0)
    groups = tuple(group for group in cmap.groups if group.name.startswith("features"))
    return Evidence(network, cmap, groups, images, labels, 0)


def rank(name: str, facts: Evidence, count: int) -> None:
    """Ranks all groups of the network by a criterion, or only does a forward pass."""
    if name != FORWARD:
        kind = name.split(",")[0]
        ranked(option("criterion", kind, Criterion, num_samples=count, **CRITERIA[name]), facts)
        return
    with torch.no_grad():
        for some, _ in facts.batches(count, images_at_once(facts, 64)):
            facts.network(some)


def measured(name: str, facts: Evidence, count: int) -> tuple[float, float, float]:
    """Returns a fork's memory before and at its peak in MiB, and the CPU seconds of its ranking."""
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()

    def work() -> None:
        before, start = peak(), time.process_time()
        rank(name, facts, count)
        theirs.send((before, peak(), time.process_time() - start))

    process = context.Process(target=work)
    process.start()
    theirs.close()  # otherwise recv would wait for ever if the process fails
    found: tuple[float, float, float] = mine.recv()
    process.join()
    return found


def main() -> None:
    """Measures all criteria with each number of images."""
    parser = arguments(__doc__)
    parser.add_argument("tree")
    parser.add_argument("--images", type=int, nargs="+", default=[4, 12])
    parser.add_argument("--criteria", nargs="+", default=list(CRITERIA)[1:])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    for count in asked.images:
        facts, forward = evidence(asked.tree, count), 0.0
        ctypes.CDLL(None).malloc_trim(0)  # otherwise memory freed before would count, too
        for name in (FORWARD, *asked.criteria):
            before, most, seconds = measured(name, facts, count)
            forward = forward or seconds
            rows.append(
                {
                    "criterion": name,
                    "images": count,
                    "memory before, MiB": before,
                    "most": most,
                    "seconds": seconds,
                    "times the time": seconds / forward,
                }
            )
            print(*rows[-1].values(), file=sys.stderr)
        del facts
    publish(asked, "Criteria on VGG-16 at 224 x 224: memory and time", ABOUT, rows)


if __name__ == "__main__":
    main()
