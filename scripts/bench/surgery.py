"""Compares the time and memory of tracing and slimming with those of torch-pruning.

    python scripts/bench/surgery.py [--repeats 5] [--only resnet50 ...]

CPU time of this process (`time.process_time`), one thread, alternating, garbage collected before
each, medians. Both tools cut 40 % of the channels of the same, freshly copied network by L1 norm,
ours as `criterion=l1` computes it. Memory is how much the peak of a forked process exceeds its
start. Needs the ``bench`` extra. `surgery_table.py` compares the results.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import multiprocessing
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torchvision
from result import Row, arguments, publish
from torch import Tensor, nn

from prunebench.budgets.counts import best
from prunebench.channels import ChannelMap, Plan, slim, trace
from prunebench.contracts import Evidence
from prunebench.criteria.l1 import L1

RATIO = 0.4
HEADS = ("fc", "out", "aux")
TIMED = """
resnet18 resnet50 vgg16_bn densenet121 densenet201 mobilenet_v2 efficientnet_b0 regnet_y_400mf
convnext_tiny inception_v3 ours:resnet20 ours:resnet56 ours:resnet110
""".split()  # noqa: SIM905
ABOUT = """Tracing the channels of a random network and removing 40 % of them, compared with
Torch-Pruning 1.6.1 doing the same with its own L1 importance; ours uses `criterion=l1`. Networks
named `ours:` are our ResNets for CIFAR with zero-padded shortcuts (option A) as most code writes
them. One thread's CPU time, alternating, garbage collected before each, medians (once for the peer
where it takes over five seconds). Memory is the peak that a fresh process adds to the network. The
results are compared in [surgery, net by net](../outputs/reference/surgery/table.md); for `ours:`,
the peer's result does not run."""
sys.path.append(str(Path(__file__).parents[2] / "tests" / "channels"))  # for `drawn`


class Padded(nn.Module):
    """A shortcut of option A as most code writes it, with the same result as ours."""

    def __init__(self, side: int) -> None:
        """Pads `side` channels of zeros on each side."""
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
            first: Any = stage[0]
            first.shortcut = Padded(first.conv1.in_channels // 2)
        return net
    more: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        more = {"init_weights": False, "aux_logits": False}
    built: nn.Module = getattr(torchvision.models, name)(weights=None, **more)
    return built


def by_l1(cmap: ChannelMap, model: nn.Module) -> Plan:
    """Returns the plan that keeps the channels of largest summed L1 norm."""
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
    """Prunes `model` in place with torch-pruning, except the last layer or those named as heads."""
    import torch_pruning as tp

    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    heads = [m for n, m in layers.items() if n in HEADS] or [*layers.values()][-1:]
    pruner = tp.pruner.MetaPruner(
        model, example, tp.importance.MagnitudeImportance(p=1), pruning_ratio=RATIO,
        ignored_layers=heads,
    )  # fmt: skip
    pruner.step()
    return model


def product(model: nn.Module, example: Tensor) -> nn.Module:
    """Traces, ranks with the criterion l1, and slims."""
    cmap = trace(model, example)
    facts = Evidence(model, cmap, tuple(cmap.groups), example, torch.zeros(1, dtype=torch.int64), 0)
    ranks = L1().rank(facts)
    kept = {
        group.name: best(ranks[group.name].scores, max(1, group.size - int(RATIO * group.size)))
        for group in cmap.groups
    }
    return slim(model, cmap, Plan(kept))


Tool = Callable[[nn.Module, Tensor], nn.Module]


def cpu_seconds(tool: Tool, dense: nn.Module, example: Tensor) -> float:
    """Returns the CPU time of `tool` on a copy of `dense`."""
    model = copy.deepcopy(dense)
    gc.collect()
    start = time.process_time()
    tool(model, example)
    return time.process_time() - start


def mebibytes(tool: Tool, dense: nn.Module, example: Tensor) -> float:
    """Returns by how many MiB `tool` raises the memory of a process that holds `dense`."""
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()

    def work() -> None:
        before = _resident()
        tool(dense, example)
        theirs.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before)

    gc.collect()
    # a fork's peak begins at the memory of this process, which freed memory would inflate
    ctypes.CDLL(None).malloc_trim(0)
    process = context.Process(target=work)
    process.start()
    theirs.close()
    found: float = mine.recv()
    process.join()
    return found


def _resident() -> float:
    """Returns the memory of this process now, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def compared(name: str, repeats: int) -> Row:
    """Returns the times and memory of both tools on one network."""
    dense = build(name).eval()
    layers = sum(isinstance(module, nn.Linear | nn.Conv2d) for module in dense.modules())
    side = 32 if name.startswith("ours:") else 299 if name == "inception_v3" else 224
    example = torch.randn(1, 3, side, side)
    cpu_seconds(product, dense, example)  # warm up torch
    mine, theirs = list[float](), list[float]()
    for _ in range(repeats):
        mine.append(cpu_seconds(product, dense, example))
        if not theirs or theirs[0] < 5:
            theirs.append(cpu_seconds(peer, dense, example))
    return {
        "network": name,
        "layers": layers,
        "torch-pruning, s": median(theirs),
        "prunebench, s": median(mine),
        "times as fast": median(theirs) / median(mine),
        "ms a layer": 1e3 * median(mine) / layers,
        "torch-pruning, MiB": mebibytes(peer, dense, example),
        "prunebench, MiB": mebibytes(product, dense, example),
    }


def main() -> None:
    """Compares both tools on each network."""
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=TIMED)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = []
    for name in options.only:
        rows.append(compared(name, options.repeats))
        print(*rows[-1].values(), file=sys.stderr)
    publish(options, "Tracing and slimming", ABOUT, rows)


if __name__ == "__main__":
    main()
