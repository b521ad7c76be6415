"""Peak memory of the criteria that look at images, on VGG-16 at 224 x 224.

    python scripts/bench/memory.py TREE [--images 32 64] [--criteria foad thinet ...]

TREE holds a folder of images for each class, of which samples are streamed as a run does it. Every
figure comes from a process of its own, weights and libraries included; a forward of as many images,
in the same chunks, stands beside the seconds.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from typing import Any

from result import Row, arguments, publish

ABOUT = """Memory of a process of its own, libraries and weights included, before and at most;
seconds of one thread's CPU time beside those of a forward of as many images in the same chunks."""
CRITERIA: dict[str, dict[str, Any]] = {
    "foad": {},
    "thinet": {},
    "hrank": {},
    "apoz": {},
    "taylor": {"form": "activation"},
    "taylor, weight": {"form": "weight"},
}


def peak() -> float:
    """Most memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(tree: str, name: str, count: int, answer: Any) -> None:
    """Ranks all groups of VGG-16 by a criterion; sends seconds and peaks."""
    import torch
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

    torch.set_num_threads(1)
    torch.manual_seed(0)
    cut = {"val_size": 0, "test_size": 0}
    data = option("dataset", "folder", DatasetSpec, path=tree, **cut, workers=0).suited(None).load()
    network = models.vgg16(num_classes=max(2, data.classes)).eval()
    cmap = trace(network, tracing_image(data.shape))
    images, labels = split_on(torch.device("cpu"), data, data.train).sample(count, seed=0)
    groups = tuple(group for group in cmap.groups if group.name.startswith("features"))
    facts = Evidence(network, cmap, groups, images, labels, 0)
    before = peak()
    size, start = images_at_once(facts, 64), time.process_time()
    with torch.no_grad():
        for some, _ in facts.batches(count, size):
            network(some)
    forward, start = time.process_time() - start, time.process_time()
    criterion = option(
        "criterion", name.split(",")[0], Criterion, num_samples=count, **CRITERIA[name]
    )
    ranked(criterion, facts)
    answer.send((before, peak(), time.process_time() - start, forward))


def main() -> None:
    """Measures all."""
    parser = arguments(__doc__)
    parser.add_argument("tree")
    parser.add_argument("--images", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--criteria", nargs="+", default=list(CRITERIA))
    asked = parser.parse_args()
    rows: list[Row] = []
    context = multiprocessing.get_context("spawn")
    for name in asked.criteria:
        for count in asked.images:
            mine, theirs = context.Pipe()
            process = context.Process(target=measure, args=(asked.tree, name, count, theirs))
            process.start()
            theirs.close()  # so that a process that fails is heard of
            before, most, seconds, forward = mine.recv()
            process.join()
            rows.append(
                {
                    "criterion": name,
                    "images": count,
                    "memory before, MiB": before,
                    "most": most,
                    "forward, s": forward,
                    "criterion, s": seconds,
                    "times the time": seconds / forward,
                }
            )
    publish(asked, "Criteria on VGG-16 at 224 x 224: memory and time", ABOUT, rows)


if __name__ == "__main__":
    main()
