"""Measures what it is worth on a CPU that glibc keeps freed memory instead of returning it.

    python scripts/bench/allocator.py [--rounds 5] [--images 512]

By default glibc requests memory from the system for each large tensor and returns it afterwards,
and the system clears every page before use. Two environment variables, read when a process starts,
prevent this. Each figure comes from a process of its own, alternately with and without them;
figures are medians of CPU time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from resource import RUSAGE_SELF, getrusage
from statistics import median
from time import process_time

import torch
from result import Row, arguments, publish
from torchvision.models import vgg16_bn
from training_step import PHASE, epoch, in_memory, noise

from prunebench.channels import Plan, slim, trace
from prunebench.datasets import Data
from prunebench.measure.accuracy import evaluate
from prunebench.models import ModelSpec
from prunebench.options import option
from prunebench.training.resident import ResidentSplit

ABOUT = """CPU seconds of the same work in processes started without and with `MALLOC_MMAP_MAX_=0
MALLOC_TRIM_THRESHOLD_=2147483647`, which makes glibc keep freed memory. One thread, alternating
rounds, medians; "from, to" is the range of the ratio over the rounds. "pages" are memory pages
that the system had to clear. Random images and weights."""
KEPT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "2147483647"}
CPU = torch.device("cpu")


def works(images: int) -> dict[str, Callable[[], object]]:
    """Returns name -> work to measure; each is run once beforehand."""
    data = noise(images)
    small, large = (
        option("model", name, ModelSpec).build(data.shape, 10) for name in ("resnet20", "resnet56")
    )
    test = ResidentSplit(data, in_memory(data.test), device=CPU, channels_last=True)
    return {
        "training resnet20, float32": lambda: training(small, data, "float32"),
        "training resnet20, bf16": lambda: training(small, data, "bf16"),
        "evaluating resnet56": lambda: evaluate(large, test),
        "tracing and slimming vgg16_bn": slimming,
    }


def training(network: torch.nn.Module, data: Data, precision: str) -> None:
    """Trains an epoch."""
    epoch(network, data, replace(PHASE, precision=precision, channels_last=True), CPU, "off")


def slimming() -> None:
    """Removes half of all channels of a network of 528 MiB."""
    network = vgg16_bn(weights=None).eval()
    channels = trace(network, torch.randn(1, 3, 224, 224))
    slim(network, channels, Plan({part.name: range(0, part.size, 2) for part in channels.groups}))


def figures(images: int) -> dict[str, list[float]]:
    """Returns name -> [seconds, pages] of each work, and the peak memory of all in MiB."""
    found = {}
    for name, work in works(images).items():
        work()
        before, start = getrusage(RUSAGE_SELF).ru_minflt, process_time()
        work()
        found[name] = [process_time() - start, getrusage(RUSAGE_SELF).ru_minflt - before]
    return found | {"memory": [getrusage(RUSAGE_SELF).ru_maxrss / 1024]}


def started(images: int, kept: dict[str, str]) -> dict[str, list[float]]:
    """Returns the figures of a process that is started with the variables in `kept`."""
    command = [sys.executable, __file__, "--images", str(images), "--within"]
    done = subprocess.run(command, env=os.environ | kept, capture_output=True, check=True)
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


def main() -> None:
    """Prints the figures."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--within", action="store_true", help="what each process is started with")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.within:
        print(json.dumps(figures(asked.images)))
        return
    rounds = [(started(asked.images, {}), started(asked.images, KEPT)) for _ in range(asked.rounds)]
    memory = [median(both[k]["memory"][0] for both in rounds) for k in range(2)]
    rows: list[Row] = []
    for name in list(rounds[0][0])[:-1]:
        ratios = [usual[name][0] / kept[name][0] for usual, kept in rounds]
        pages = [int(median(both[k][name][1] for both in rounds)) for k in range(2)]
        rows.append(
            {
                "what": name,
                "default, s": median(usual[name][0] for usual, _ in rounds),
                "kept, s": median(kept[name][0] for _, kept in rounds),
                "times as fast": median(ratios),
                "from, to": f"{min(ratios):.2f}, {max(ratios):.2f}",
                "pages, default": pages[0],
                "pages, kept": pages[1],
            }
        )
    about = f"{ABOUT} Peak memory: {memory[0]:,.0f} MiB by default, {memory[1]:,.0f} MiB if kept."
    publish(asked, "Keeping freed memory on a CPU", about, rows)


if __name__ == "__main__":
    main()
