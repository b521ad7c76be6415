"""Compares the latency of dense and slim networks in every engine.

    python scripts/bench/latency.py [--models resnet56 vgg16 mobilenet_v1] [--batch 64]

The engines are eager, channels_last, compiled and onnxruntime. Networks have random weights, images
of 32 x 32 and half of their MACs (`criterion=l1 budget=macs`), with any widths and with multiples
of 8 (`budget.divisor=8`). One thread, CPU time of this process, medians; the networks are timed
alternately. Needs the ``export`` extra.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
from result import Row, arguments, by_turns, publish
from torch import Tensor, nn

import prunebench
from prunebench.measure.engines import ENGINES, runner
from prunebench.models import ModelSpec
from prunebench.options import option

ABOUT = """The dense network compared with slim networks that have half its multiply-adds, in the
same engine: milliseconds of the dense network, and the speed-up of the slim ones, with arbitrary
widths and with multiples of 8. Random weights, images of 32 x 32, one thread's CPU time, medians
of alternating passes."""
#: variant -> settings by which each network is cut
CUTS: dict[str, dict[str, Any]] = {"any width": {}, "multiples of 8": {"divisor": 8}}
#: engines to compare; channels_last is eager in another memory format
FORMS = ("eager", "channels_last", *(engine for engine in ENGINES if engine != "eager"))


def networks(model: str) -> dict[str, nn.Module]:
    """Returns the dense network and the slim ones."""
    torch.manual_seed(0)
    dense = option("model", model, ModelSpec).build((3, 32, 32), 10).eval()
    example = torch.randn(1, 3, 32, 32)
    found = {"dense": dense}
    for name, settings in CUTS.items():
        found[name] = prunebench.prune(dense, example, criterion="l1", macs=0.5, **settings)
    return found


def prepared(network: nn.Module, form: str, images: Tensor) -> Callable[[], object]:
    """Returns a function that passes `images` through the network once."""
    if form == "channels_last":
        network = network.to(memory_format=torch.channels_last)
        return partial(network, images.contiguous(memory_format=torch.channels_last))
    network = network.to(memory_format=torch.contiguous_format)
    return partial(runner(form, network, images), images)


def compared(model: str, forms: Sequence[str], batch: int, repeats: int) -> list[Row]:
    """Returns a row for each engine."""
    images, rows = torch.randn(batch, 3, 32, 32), list[Row]()
    nets = networks(model)
    for form in forms:
        works = {name: prepared(network, form, images) for name, network in nets.items()}
        for work in works.values():
            work()
        found = by_turns(works, repeats)
        dense = found.pop("dense")
        row: Row = {"model": model, "engine": form, "dense, ms": 1e3 * median(dense)}
        for name, times in found.items():
            row[f"times as fast, {name}"] = median(dense) / median(times)
        rows.append(row)
    return rows


def main() -> None:
    """Compares each model in each engine."""
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=["resnet56", "vgg16", "mobilenet_v1"])
    parser.add_argument("--forms", nargs="+", default=FORMS, choices=FORMS)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=9)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with torch.no_grad():
        rows = [
            row
            for model in asked.models
            for row in compared(model, asked.forms, asked.batch, asked.repeats)
        ]
    publish(asked, f"Latency at half the MACs, batch {asked.batch}", ABOUT, rows)


if __name__ == "__main__":
    main()
