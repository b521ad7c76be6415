"""Times tracing plus slimming against torch-pruning.

    python scripts/bench/surgery.py

CPU time of this process (`time.process_time`), one thread, by turns, garbage collected before
each, medians; both tools cut 40 % of the channels of the same, freshly copied network by L1 norm.
Needs the ``bench`` extra. `surgery_table.py` compares what comes out.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from prunebench.channels import ChannelMap, Plan, slim, trace

RATIO = 0.4
HEADS = ("fc", "out", "aux")
TIMED = {"resnet50": (224, 5.0), "vgg16_bn": (224, 5.0), "densenet201": (224, 20.0)}
sys.path.append(str(Path(__file__).parents[2] / "tests" / "channels"))  # for `drawn`


class Padded(nn.Module):
    """Option A as most code writes it: the same pixels and channels as our shortcut."""

    def __init__(self, side: int) -> None:
        """Pads `side` channels of zeros on either side."""
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        """Returns [n, C + 2 side, H / 2, W / 2] from [n, C, H, W]."""
        return nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.side, self.side))


def build(name: str) -> nn.Module:
    """Returns a random network by name (``timm:`` and ``ours:`` prefixed)."""
    if name.startswith("timm:"):
        import timm

        model: nn.Module = timm.create_model(name[5:], pretrained=False)
        return model
    if name.startswith("ours:"):
        from prunebench.models.resnet import ResnetNetwork

        blocks = (int(name[11:]) - 2) // 6
        net = ResnetNetwork((16, 32, 64), blocks=blocks, shortcut="A", channels=3, classes=10)
        for stage in (net.layer2, net.layer3):
            stage[0].shortcut = Padded(stage[0].conv1.in_channels // 2)
        return net
    more: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        more = {"init_weights": False, "aux_logits": False}
    built: nn.Module = getattr(torchvision.models, name)(weights=None, **more)
    return built


def by_l1(cmap: ChannelMap, model: nn.Module) -> Plan:
    """Returns the plan that keeps the classes of largest summed L1 norm."""
    parameters = dict(model.named_parameters())
    kept = {}
    with torch.no_grad():
        for group in cmap.groups:
            scores = torch.zeros(group.size)
            for site in group.producers:
                weight = parameters[site.name].movedim(site.dim, 0)
                site.add_to(scores, weight.flatten(1).abs().sum(1).float())
            count = max(1, group.size - int(RATIO * group.size))
            kept[group.name] = scores.topk(count).indices.sort().values.tolist()
    return Plan(kept)


def ours(model: nn.Module, example: Tensor) -> nn.Module:
    """Traces, ranks by L1 and slims."""
    cmap = trace(model, example)
    return slim(model, cmap, by_l1(cmap, model))


def peer(model: nn.Module, example: Any) -> nn.Module:
    """Prunes `model` in place with torch-pruning, all but its last layer or what is named so."""
    import torch_pruning as tp

    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    heads = [m for n, m in layers.items() if n in HEADS] or [*layers.values()][-1:]
    pruner = tp.pruner.MetaPruner(
        model, example, tp.importance.MagnitudeImportance(p=1), pruning_ratio=RATIO,
        ignored_layers=heads,
    )  # fmt: skip
    pruner.step()
    return model


def cpu_seconds(tool: Callable[[nn.Module, Tensor], nn.Module], dense: nn.Module, size: int) -> Any:
    """Returns the CPU time of `tool` on a copy of `dense`, and the parameters that it leaves."""
    model, example = copy.deepcopy(dense), torch.randn(1, 3, size, size)
    gc.collect()
    start = time.process_time()
    slimmed = tool(model, example)
    return time.process_time() - start, sum(p.numel() for p in slimmed.parameters())


def timing(repeats: int) -> None:
    """Times both tools on each network by turns and prints their medians."""
    for name, (size, goal) in TIMED.items():
        dense = build(name).eval()
        few = repeats if name != "densenet201" else 1  # over a minute each
        cpu_seconds(ours, dense, size)  # torch sets itself up
        runs: tuple[list[Any], list[Any]] = ([], [])
        for turn in range(repeats):
            runs[0].append(cpu_seconds(ours, dense, size))
            if turn < few:
                runs[1].append(cpu_seconds(peer, dense, size))
        mine, theirs = (median(seconds for seconds, _ in run) for run in runs)
        row = {
            "network": name, "prunebench_s": round(mine, 3), "torch_pruning_s": round(theirs, 3),
            "ratio": round(theirs / mine, 1), "goal": goal, "met": theirs / mine >= goal,
            "prunebench_params": runs[0][0][1], "torch_pruning_params": runs[1][0][1],
        }  # fmt: skip
        print(json.dumps(row), flush=True)


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    timing(options.repeats)


if __name__ == "__main__":
    main()
