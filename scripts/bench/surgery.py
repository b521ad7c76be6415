"""Times tracing plus slimming against torch-pruning, and compares exactness net by net.

    python scripts/bench/surgery.py                          # CPU seconds and ratio
    python scripts/bench/surgery.py --table --out table.json # exact, wrong or refuses

CPU time of this process (`time.process_time`), one thread, best of n; both tools cut 40 % of the
channels of the same, freshly built network by L1 norm. The table holds a small network for each
fragment of `tests/channels/drawn`, too (``--only drawn:ghost`` is one). Needs the ``bench`` extra.
"""

from __future__ import annotations

import argparse
import copy
import json
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from prunebench.channels import ChannelMap, Plan, slim, trace, verify
from prunebench.errors import PruningError

RATIO = 0.4
LIMIT_SECONDS = 120
TIMED = {"resnet50": (224, 5.0), "vgg16_bn": (224, 5.0), "densenet201": (224, 20.0)}
TORCHVISION = """
alexnet vgg11 vgg16_bn resnet18 resnet50 resnext50_32x4d wide_resnet50_2 densenet121
googlenet inception_v3 squeezenet1_1 mnasnet0_5 mobilenet_v2 mobilenet_v3_small
shufflenet_v2_x0_5 efficientnet_b0 efficientnet_v2_s regnet_x_400mf regnet_y_400mf
convnext_tiny
""".split()  # noqa: SIM905
TIMM = """
ghostnet_100 ghostnetv2_100 hrnet_w18_small dla34 res2net50_26w_4s repvgg_a0 cspresnet50
mobileone_s0 nfnet_l0 skresnet18 resnest14d vovnet39a inception_v4 xception41 dpn68
selecsls42 fastvit_t8 ese_vovnet19b_dw resnetv2_50 senet154 mixnet_s tinynet_e lcnet_050
hardcorenas_a darknet53 rexnet_100 fbnetc_100 convnext_atto efficientnet_lite0
mobilenetv3_small_100
""".split()  # noqa: SIM905
OURS = ("resnet20", "resnet56", "resnet110")
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


class Slow(Exception):
    """A network took longer than `LIMIT_SECONDS`."""


def fragments() -> list[str]:
    """Returns the names of the small networks, one for each fragment."""
    from drawn.program import FRAGMENTS

    return [f"drawn:{name}" for name in FRAGMENTS]


def run(model: nn.Module, example: Any) -> list[Tensor]:
    """Returns every tensor that `model` returns for a tensor, a tuple or a dict."""
    from drawn.objects import tensors
    from drawn.program import call

    return list(tensors(call(model, example)))


def build(name: str) -> nn.Module:
    """Returns a random network by name (``timm:``, ``ours:`` and ``drawn:`` prefixed)."""
    if name.startswith("drawn:"):
        from drawn.program import alone

        return alone(name[6:], seed=0).build()
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


def peer(model: nn.Module, example: Tensor) -> nn.Module:
    """Prunes `model` in place with torch-pruning."""
    import torch_pruning as tp

    heads = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1:]
    pruner = tp.pruner.MetaPruner(
        model, example, tp.importance.MagnitudeImportance(p=1), pruning_ratio=RATIO,
        ignored_layers=heads,
    )  # fmt: skip
    pruner.step()
    return model


def cpu_seconds(
    tool: Callable[[nn.Module, Tensor], nn.Module], name: str, size: int, repeats: int
) -> tuple[float, int]:
    """Returns the best CPU time of `tool`, and the parameters of the network it returns."""
    best, params = float("inf"), 0
    dense = build(name).eval()
    for _ in range(repeats):
        model, example = copy.deepcopy(dense), torch.randn(1, 3, size, size)
        start = time.process_time()
        slimmed = tool(model, example)
        best = min(best, time.process_time() - start)
        params = sum(p.numel() for p in slimmed.parameters())
    return best, params


def timing(repeats: int) -> list[dict[str, Any]]:
    """Times both tools on each network."""
    rows = []
    for name, (size, goal) in TIMED.items():
        mine, my_params = cpu_seconds(ours, name, size, repeats)
        few = repeats if name != "densenet201" else 1  # over a minute each
        theirs, their_params = cpu_seconds(peer, name, size, few)
        rows.append({
            "network": name, "prunebench_s": round(mine, 3), "torch_pruning_s": round(theirs, 3),
            "ratio": round(theirs / mine, 1), "goal": goal, "met": theirs / mine >= goal,
            "prunebench_params": my_params, "torch_pruning_params": their_params,
        })  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    return rows


def scramble(model: nn.Module) -> None:
    """Gives norms random affine parts and statistics, and zero parameters random values."""
    with torch.no_grad():
        for module in model.modules():
            for key, low, high in (("weight", 0.5, 1.5), ("running_var", 0.5, 1.5),
                                   ("bias", -0.3, 0.3), ("running_mean", -0.3, 0.3)):  # fmt: skip
                t = getattr(module, key, None)
                if isinstance(t, Tensor) and t.dim() == 1:
                    t.uniform_(low, high)
        for parameter in model.parameters():
            if not parameter.any():
                parameter.uniform_(-0.3, 0.3)


def verdict(error: float) -> str:
    """Says in words what a relative error in float64 means."""
    return "exact" if error < 1e-9 else f"wrong ({error:.0%})"


def judge_ours(model: nn.Module, example: Any) -> tuple[str, float]:
    """Returns the verdict on our surgery and the share of parameters kept."""
    try:
        cmap = trace(model, example)
        plan = by_l1(cmap, model)
        slimmed = slim(model, cmap, plan)
    except PruningError as error:
        return f"refuses: {error}", 1.0
    except Exception as error:  # noqa: BLE001  (a finding, as with the peer)
        return f"raises {type(error).__name__}", 1.0
    if not cmap.groups:
        return "freezes all", 1.0
    share = cmap.params(plan) / max(1, cmap.params(Plan({})))
    try:
        return verdict(verify(model, slimmed, cmap, plan, example)), share
    except Exception as error:  # noqa: BLE001
        return f"raises {type(error).__name__} when run", share


def out_of_time(*_: object) -> None:
    """Stops a network that takes too long."""
    raise Slow


def judge_peer(model: nn.Module, example: Any) -> tuple[str, float]:
    """Returns the same for torch-pruning; removed producers are zeroed in a copy of the net."""
    import torch_pruning as tp

    dense = copy.deepcopy(model)
    total = sum(p.numel() for p in model.parameters())
    names = {module: name for name, module in model.named_modules()}
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(LIMIT_SECONDS)
    left = {}  # producer or norm -> original indices of its current channels
    try:
        heads = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1:]
        pruner = tp.pruner.MetaPruner(
            model, example, tp.importance.MagnitudeImportance(p=1), pruning_ratio=RATIO,
            ignored_layers=heads,
        )  # fmt: skip
        for group in pruner.step(interactive=True):
            for dep, gone in group:
                module = dep.target.module
                if names.get(module) is None or not dep.handler.__name__.startswith("prune_out"):
                    continue
                size = getattr(dense.get_submodule(names[module]), "weight", None)
                if size is None:
                    continue
                now = left.setdefault(names[module], list(range(_outputs(dense, names[module]))))
                left[names[module]] = [v for i, v in enumerate(now) if i not in set(gone)]
            group.prune()
        model.eval()
        have = run(model, example)
    except Slow:
        return f"not done in {LIMIT_SECONDS} s", 1.0
    except Exception as error:  # noqa: BLE001  (whatever the peer raises is the finding)
        return f"raises {type(error).__name__}", 1.0
    finally:
        signal.alarm(0)
    want = run(dense.eval(), example)
    if [t.shape[:2] for t in have] != [t.shape[:2] for t in want]:
        return f"wrong ({', '.join(str(t.shape[1]) for t in have)} outputs)", 1.0
    _zero(dense, left)
    want = run(dense, example)
    error = max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(want, have, strict=True))
    normed = any(isinstance(m, nn.LayerNorm | nn.GroupNorm) for m in dense.modules())
    if normed and error >= 1e-9:  # zeroed channels take part in its statistics, removed ones do not
        return "not judged (LayerNorm)", sum(p.numel() for p in model.parameters()) / total
    return verdict(error), sum(p.numel() for p in model.parameters()) / total


def _outputs(model: nn.Module, name: str) -> int:
    module: Any = model.get_submodule(name)
    turned = isinstance(module, nn.modules.conv._ConvTransposeNd)
    return int(module.weight.size(1) * module.groups if turned else module.weight.size(0))


def _zero(model: nn.Module, left: dict[str, list[int]]) -> None:
    """Zeroes the removed output channels of every module in `left`."""
    with torch.no_grad():
        for name, stays in left.items():
            module = model.get_submodule(name)
            gone = torch.ones(_outputs(model, name), dtype=torch.bool)
            gone[stays] = False
            for key in ("weight", "bias"):
                t = getattr(module, key, None)
                if isinstance(t, Tensor) and len(t) == len(gone):
                    t[gone] = 0


def inputs(name: str, size: int) -> Any:
    """Returns two images, or what a small network takes instead."""
    if name.startswith("drawn:"):
        from drawn.program import alone

        return alone(name[6:], seed=0).example(0)
    return torch.randn(2, 3, size, size, dtype=torch.float64)


def table(names: list[str]) -> list[dict[str, Any]]:
    """Judges both tools on each network in float64."""
    rows = []
    print("| network | prunebench | kept | torch-pruning | kept |\n|---|---|---|---|---|")
    for name in names:
        torch.manual_seed(0)
        size = 32 if name.startswith("ours:") else 128 if "inception" in name else 64
        size = 75 if name == "inception_v3" else size
        model = build(name).eval()
        model = model if name.startswith("drawn:") else model.double()  # some mix types on purpose
        scramble(model)
        example = inputs(name, size)
        mine, my_share = judge_ours(model, example)
        theirs, their_share = judge_peer(model, example)
        row = {"network": name, "prunebench": mine, "kept": round(my_share, 2)}
        rows.append({**row, "torch_pruning": theirs, "torch_pruning_kept": round(their_share, 2)})
        print(f"| {name} | {mine} | {my_share:.2f} | {theirs} | {their_share:.2f} |", flush=True)
    return rows


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--table", action="store_true", help="exactness instead of time")
    parser.add_argument("--only", nargs="*", help="networks of the table; default: all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="where to write the rows as JSON")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    names = [*TORCHVISION, *(f"ours:{n}" for n in OURS), *(f"timm:{n}" for n in TIMM)]
    names += fragments() if options.table else []
    rows = table(options.only or names) if options.table else timing(options.repeats)
    if options.out:
        versions = {"torch": torch.__version__, "torchvision": torchvision.__version__}
        options.out.write_text(json.dumps({"versions": versions, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
