"""Compares the surgery of prunebench and torch-pruning, net by net: exact, wrong, or refused.

    python scripts/bench/surgery_table.py

It writes `outputs/reference/surgery`. Beside networks of torchvision, timm and our own it judges a
small network for each fragment of `tests/channels/drawn` (``--only drawn:ghost`` judges one and
writes nothing). Needs the ``bench`` extra.
"""

from __future__ import annotations

import argparse
import copy
import json
import signal
import warnings
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from surgery import RATIO, build, by_l1, ours, peer
from torch import Tensor, nn

from prunebench.channels import Plan, slim, trace, verify
from prunebench.channels.tensors import tensors_in
from prunebench.errors import PruningError

LIMIT_SECONDS = 120
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
Tool = Callable[[nn.Module, Any], nn.Module]

REFERENCE = Path(__file__).parents[2] / "outputs" / "reference" / "surgery"
TEXT = """# Surgery, net by net

How exactly prunebench and Torch-Pruning cut many networks: `python scripts/bench/surgery_table.py`
(the `bench` extra), float64, random weights and batch-norm statistics, 40 % of the channels removed
by L1 norm. "exact": the slim network differs from the masked one by less than 1e-9 (relative).
"kept": the share of parameters left. `ours:` is our ResNet with zero-padded shortcuts (option A) as
most code writes them. "not judged": removed channels change LayerNorm's statistics and zeroed ones
do not, and Torch-Pruning has no mask of its own. `table.json` has all refusals and errors.
"""
DRAWN = """One small network around each fragment of `tests/channels/drawn`, kinds of code that were
reported to break pruning tools: caches, hooks, closures, ghost concatenations, shared or transposed
weights, outputs in objects. The tests' oracle decides: "exact" means that the slim network computes
what the dense network does with zeros for the removed channels. "refuses" and "freezes" come with a
reason.
"""


class Slow(Exception):
    """Raised when a network takes longer than `LIMIT_SECONDS`."""


def fragments() -> list[str]:
    """Returns the names of the small networks, one for each fragment."""
    from drawn.program import FRAGMENTS

    return [f"drawn:{name}" for name in FRAGMENTS]


def judge_drawn(fragment: str, tool: Tool) -> tuple[str, float]:
    """Returns the verdict of the tests' oracle on a small network, and the share kept.

    The oracle sets to zero in the dense network everything that the cut has removed, including the
    weights that read it. That is fair to tools that cut in place, and to hooks and closures.
    """
    from drawn.oracle import Bad, check_same, run
    from drawn.program import alone

    program = alone(fragment, seed=0)
    model = program.build()
    total = sum(p.numel() for p in model.parameters())
    try:
        small = tool(model, program.example(0))
    except PruningError as error:
        return f"refuses: {error}", 1.0
    except Exception as error:  # noqa: BLE001  (whatever a tool raises is the finding)
        return f"raises {type(error).__name__}", 1.0
    share = sum(p.numel() for p in small.parameters()) / total
    try:
        run(small.eval(), program.example(1))
    except Bad as bad:
        return f"raises when run: {bad.verdict.why}", share
    try:
        check_same(program, small, training=False)
    except Bad as bad:
        return f"wrong: {bad.verdict.why}", share
    return "exact" if share < 1 else "freezes all", share


def outputs(model: nn.Module, example: Tensor) -> list[Tensor]:
    """Returns every tensor that `model` returns."""
    with torch.no_grad():
        return list(tensors_in(model(example)))


def scramble(model: nn.Module) -> None:
    """Gives norms random weights and statistics, and all-zero parameters random values."""
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
    """Returns in words what a relative error in float64 means."""
    return "exact" if error < 1e-9 else f"wrong ({error:.0%})"


def judge_ours(model: nn.Module, example: Any) -> tuple[str, float]:
    """Returns the verdict on our surgery and the share of parameters kept."""
    try:
        cmap = trace(model, example)
        plan = by_l1(cmap, model)
        slimmed = slim(model, cmap, plan)
    except PruningError as error:
        return f"refuses: {error}", 1.0
    except Exception as error:  # noqa: BLE001  (whatever we raise is the finding)
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
    """Returns the same for torch-pruning, compared with a copy whose removed channels are zero."""
    import torch_pruning as tp

    dense = copy.deepcopy(model)
    total = sum(p.numel() for p in model.parameters())
    names = {module: name for name, module in model.named_modules()}
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(LIMIT_SECONDS)
    left: dict[str, list[int]] = {}  # producer or norm -> original indices of its current channels
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
        have = outputs(model, example)
    except Slow:
        return f"not done in {LIMIT_SECONDS} s", 1.0
    except Exception as error:  # noqa: BLE001  (whatever the peer raises is the finding)
        return f"raises {type(error).__name__}", 1.0
    finally:
        signal.alarm(0)
    want = outputs(dense.eval(), example)
    if [t.shape[:2] for t in have] != [t.shape[:2] for t in want]:
        return f"wrong ({', '.join(str(t.shape[1]) for t in have)} outputs)", 1.0
    _zero(dense, left)
    want = outputs(dense, example)
    apart = max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(want, have, strict=True))
    normed = any(isinstance(m, nn.LayerNorm | nn.GroupNorm) for m in dense.modules())
    if normed and apart >= 1e-9:  # its statistics include zeroed channels, but not removed ones
        return "not judged (LayerNorm)", sum(p.numel() for p in model.parameters()) / total
    return verdict(apart), sum(p.numel() for p in model.parameters()) / total


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


def judged(name: str) -> tuple[tuple[str, float], tuple[str, float]]:
    """Returns verdict and share kept of our surgery and of torch-pruning's, in float64."""
    torch.manual_seed(0)
    if name.startswith("drawn:"):
        return judge_drawn(name[6:], ours), judge_drawn(name[6:], peer)
    size = 32 if name.startswith("ours:") else 128 if "inception" in name else 64
    size = 75 if name == "inception_v3" else size
    model = build(name).eval().double()
    scramble(model)
    example = torch.randn(2, 3, size, size, dtype=torch.float64)
    return judge_ours(model, example), judge_peer(model, example)


def table(names: list[str]) -> list[dict[str, Any]]:
    """Judges both tools on each network."""
    rows = []
    for name in names:
        (mine, my_share), (theirs, their_share) = judged(name)
        row = {"network": name, "prunebench": mine, "kept": round(my_share, 2)}
        rows.append({**row, "torch_pruning": theirs, "torch_pruning_kept": round(their_share, 2)})
        print(line(rows[-1]), flush=True)
    return rows


def line(row: dict[str, Any]) -> str:
    """Returns a row of the table; only the JSON file has the reasons of refusals."""
    cells = [row["network"]]
    for tool, kept in (("prunebench", "kept"), ("torch_pruning", "torch_pruning_kept")):
        word = row[tool].split(":")[0]
        cells += [word, f"{row[kept]:.2f}" if word.startswith(("exact", "wrong", "not j")) else ""]
    return f"| {' | '.join(cells)} |"


def tally(rows: list[dict[str, Any]]) -> str:
    """Returns how many networks each tool cut exactly, and the verdicts on the others."""
    told = []
    for tool in ("prunebench", "torch_pruning"):
        words = Counter(row[tool].split(":")[0].split(" ")[0] for row in rows)
        counts = ", ".join(f"{word} {n}" for word, n in words.most_common())
        told.append(f"{tool.replace('_', '-')}: {counts}")
    return f"Of {len(rows)}: {'; '.join(told)}."


def write(rows: list[dict[str, Any]]) -> None:
    """Writes the table and its rows; the small networks form a table of their own."""
    versions = {name: version(name) for name in ("torch", "torchvision", "torch-pruning", "timm")}
    text = json.dumps({"versions": versions, "rows": rows}, indent=1)
    REFERENCE.joinpath("table.json").write_text(text + "\n")
    head = "| network | prunebench | kept | torch-pruning | kept |\n|---|---|---|---|---|"
    parts = [TEXT + ", ".join(f"{name} {number}" for name, number in versions.items()) + ".\n"]
    for drawn in (False, True):
        part = [row for row in rows if row["network"].startswith("drawn:") == drawn]
        parts += [DRAWN] if drawn else []
        parts.append("\n".join([head, *map(line, part), "", tally(part), ""]))
    REFERENCE.joinpath("table.md").write_text("\n".join(parts))


def main() -> None:
    """Judges the networks that the command line names, or all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="*", help="networks of the table; default: all")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    names = [*TORCHVISION, *(f"ours:{n}" for n in OURS), *(f"timm:{n}" for n in TIMM)]
    rows = table(options.only or [*names, *fragments()])
    if not options.only:
        write(rows)


if __name__ == "__main__":
    main()
