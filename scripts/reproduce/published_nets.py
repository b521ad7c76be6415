"""Counts our own networks, dense and pruned, for ``prunebench published check``.

Writes ``prunebench/published/nets.json``, so that the check needs no torch; ``--check`` only
compares.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from torch import nn

from prunebench.channels import Plan, trace
from prunebench.config import load
from prunebench.contracts import Dense, GroupRank
from prunebench.measure.conventions import conventions
from prunebench.models import ModelSpec
from prunebench.models.resnet50_caffe import Resnet50Caffe
from prunebench.options import component
from prunebench.options.files import conf_dir, read_option
from prunebench.published.nearest import WIDTHS
from prunebench.published.record import find

FILE = Path(__file__).resolve().parents[2] / "prunebench" / "published" / "nets.json"
SHAPES = {"cifar10": ((3, 32, 32), 10), "cifar100": ((3, 32, 32), 100)}
LARGE = ((3, 224, 224), 1000)
FACE = ((3, 112, 112), 10_572)
CIFAR = [f"model=resnet{depth}" for depth in (20, 32, 44, 56, 110)]
CIFAR += ["model=vgg16", "model=vgg16_gap", "model=mobilenet_v1", "model=mobilenet_v2"]
CIFAR += ["model=vgg19", "model=resnet164", "model=densenet40", "model=googlenet"]
IMAGENET = {"resnet50": ["model=imagenet_resnet50", "model=imagenet_resnet50_caffe"]}
IMAGENET["mobilenet_v1"] = ["model=imagenet_mobilenet_v1"]
IMAGENET["mobilenet_v2"] = ["model=imagenet_mobilenet_v2"]
IMAGENET["vgg16"] = ["model=torchvision model.name=vgg16", "model=imagenet_vgg16_bn"]
IMAGENET["vgg16_gap"] = ["model=vgg16_gap", "model=torchvision model.name=vgg16"]
for name in ("resnet18", "resnet34", "resnet101", "resnet152", "alexnet"):
    IMAGENET[name] = [f"model=torchvision model.name={name}"]


def main() -> int:
    """Writes the file; with ``--check``, returns 1 if it is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    text = json.dumps({"nets": nets(), "shapes": shapes()}, indent=1) + "\n"
    if check:
        return int(FILE.read_text() != text)
    FILE.write_text(text)
    return 0


def nets() -> list[dict[str, Any]]:
    """Returns the dense networks that published rows may have started from, with their counts."""
    wanted = [(words.partition("=")[2], dataset, words) for dataset in SHAPES for words in CIFAR]
    wanted += [
        (model, "imagenet", words) for model, several in IMAGENET.items() for words in several
    ]
    wanted.append(("mobilefacenet", "casia_webface", "model=mobilefacenet"))
    found = []
    for model, dataset, words in wanted:
        name, *changes = (word.partition("=")[2] for word in words.split())
        values = read_option(conf_dir() / "model" / f"{name}.yaml")
        values |= {"name": changes[0]} if changes else {}
        values |= {"weights": None} if "weights" in values else {}
        network, example = built(component("model", values, ModelSpec), dataset, "cpu")
        found.append(
            {"model": model, "dataset": dataset, "run": words, **conventions(network, example)}
        )
    return found


def shapes() -> dict[str, list[dict[str, int]]]:
    """Returns id of a row -> counts of our networks when cut to the row's widths."""
    return {row_id: cut(row_id) for row_id in WIDTHS}


def cut(row_id: str) -> list[dict[str, int]]:
    """Returns the counts of one row's widths, for each of our networks that it fits."""
    row, words = find(row_id), list(WIDTHS[row_id])
    if not words[0].startswith("experiment"):
        words = [f"model={row.model}", f"dataset={row.dataset}", "criterion=l1", *words]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("config", ["name=shape", *words])
    if "weights" in config.model:
        config.model.weights = None  # they would be downloaded needlessly
    run = load(config, {})
    found = []
    for model in [run.model, *([Resnet50Caffe()] if row.model == "resnet50" else [])]:
        network, example = built(model, row.dataset, "meta")
        cmap = trace(network, example)
        sizes = {group.name: group.size for group in cmap.groups}
        dense = Dense(sizes=sizes, macs=cmap.macs(Plan({})), params=cmap.params(Plan({})))
        ranks = {
            group.name: GroupRank(torch.arange(group.size).double())
            for group in run.budget.select(cmap)
        }
        plan = run.budget.choose(cmap, ranks, dense, share=1.0)
        biases = sum(
            len(plan.kept.get(name, range(layer.bias.numel())))
            for name, layer in layers(network)
            if layer.bias is not None
        )
        total = cmap.params(plan)
        found.append({"params": total, "weights": total - biases, "macs": cmap.macs(plan)})
    return found


def built(model: ModelSpec, dataset: str, device: str) -> tuple[nn.Module, torch.Tensor]:
    """Returns a network on a device, and an image for it; on ``meta`` neither holds data."""
    shape, classes = (SHAPES | {"casia_webface": FACE}).get(dataset, LARGE)
    with torch.device(device):
        return model.build(shape, classes).eval(), torch.zeros(1, *shape)


def layers(network: nn.Module) -> list[tuple[str, nn.Conv2d | nn.Linear]]:
    """Returns the convolutions and linear layers, with their names."""
    modules = network.named_modules()
    return [(name, m) for name, m in modules if isinstance(m, nn.Conv2d | nn.Linear)]


if __name__ == "__main__":
    sys.exit(main())
