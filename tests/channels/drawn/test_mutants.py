"""`prune` must notice surgery that is broken on purpose, one kind of fault at a time."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from drawn.program import Program
from torch import nn

import prunebench
from prunebench.channels import ChannelMap, GatherChannels, slim
from prunebench.errors import PrunebenchError

#: what happens to (dense, slim network) after the cut
Change = Callable[[nn.Module, nn.Module], Any]

PLAIN = Program(("residual", "depthwise"))


def row(net: nn.Module, small: nn.Module) -> None:
    weight = small.stem[0].weight
    weight.copy_(net.stem[0].weight[: len(weight)])


def column(net: nn.Module, small: nn.Module) -> None:
    small.fc.weight.copy_(small.fc.weight.roll(1, 1))


def bias(net: nn.Module, small: nn.Module) -> None:
    small.stem[0].bias.zero_()


def variance(net: nn.Module, small: nn.Module) -> None:
    small.stem[1].running_var.copy_(small.stem[1].running_var.roll(1))


def average(net: nn.Module, small: nn.Module) -> None:
    small.stem[1].running_mean.copy_(small.stem[1].running_mean.roll(1))


def epsilon(net: nn.Module, small: nn.Module) -> None:
    small.stem[1].eps = 0.1


def one_half(net: nn.Module, small: nn.Module) -> None:
    """Every gather takes its second half from where the first comes from."""
    gathers = [m for m in small.modules() if isinstance(m, GatherChannels)]
    assert gathers
    for gather in gathers:
        half = gather.positions[: len(gather.positions) // 2]
        gather.set_positions((*half, *half, *half)[: len(gather.positions)])


def original(net: nn.Module, small: nn.Module) -> None:
    small.forward = net.forward


def inner_original(net: nn.Module, small: nn.Module) -> None:
    small.stem.forward = lambda x: net.stem(x)[:, : small.stem[0].out_channels]


def groups(net: nn.Module, small: nn.Module) -> None:
    small.depthwise1[0][0].groups = 1


def rolled(name: str) -> Change:
    """Returns a change that gives every channel of a parameter its neighbour's numbers."""

    def change(net: nn.Module, small: nn.Module) -> None:
        parameter = small.get_parameter(name)
        parameter.copy_(parameter.roll(1, [d for d, n in enumerate(parameter.shape) if n > 1][0]))

    return change


def unshared(net: nn.Module, small: nn.Module) -> None:
    small.shared_weight0_b.weight = nn.Parameter(small.shared_weight0_b.weight.flip(0))


def classes(net: nn.Module, small: nn.Module) -> None:
    small.fc.weight.zero_()


def fewer_classes(net: nn.Module, small: nn.Module) -> None:
    small.fc.weight, small.fc.bias = (nn.Parameter(p[1:]) for p in small.fc.parameters())


def nothing(net: nn.Module, small: nn.Module) -> nn.Module:
    return copy.deepcopy(net)


def not_a_number(net: nn.Module, small: nn.Module) -> None:
    small.fc.bias.fill_(torch.nan)


def in_training(net: nn.Module, small: nn.Module) -> None:
    """The slim network is right in eval mode alone."""
    right = type(small).forward
    small.forward = types.MethodType(
        lambda self, x: right(self, x) * 0 if self.training else right(self, x), small
    )


def gradient(net: nn.Module, small: nn.Module) -> None:
    small.stem[0].weight.requires_grad_(False)


def momentum(net: nn.Module, small: nn.Module) -> None:
    small.stem[1].momentum = 0.5


def hook_lost(net: nn.Module, small: nn.Module) -> None:
    small.hook0._forward_hooks.clear()


def mode(net: nn.Module, small: nn.Module) -> None:
    small.stem[1].train()


def in_place(net: nn.Module, small: nn.Module) -> None:
    small.stem[2].inplace = True


#: (name, network, change); names begin with the kind of fault, if it has one
MUTANTS: list[tuple[str, Program, Change]] = [
    ("row", PLAIN, row),
    ("column", PLAIN, column),
    ("bias", PLAIN, bias),
    ("variance", PLAIN, variance),
    ("average", PLAIN, average),
    ("epsilon", PLAIN, epsilon),
    ("nothing_cut", PLAIN, nothing),
    ("not_a_number", PLAIN, not_a_number),
    *(
        (f"A_{kind}_{change.__name__}", Program(("residual",), outputs=kind), change)
        for kind in ("tensor", "nested", "named_tuple", "dataclass", "own_class", "namespace")
        for change in (classes, fewer_classes)
    ),
    *(
        (f"B_{name}_{seed}", Program((name,), seed=seed), one_half)
        for name, seed in (("swapped", 0), ("swapped", 3), ("padded", 1), ("split", 1))
    ),
    ("C_whole", PLAIN, original),
    ("C_part", PLAIN, inner_original),
    ("E_groups", PLAIN, groups),
    ("F_positions", Program(("positions",)), rolled("positions0_p")),
    ("F_scale", Program(("layer_scale",)), rolled("layer_scale0_g")),
    ("F_gate", Program(("squeeze_excite",)), rolled("squeeze_excite0_u.weight")),
    ("G_shared", Program(("shared_weight",), seed=1), unshared),
    ("J_training", PLAIN, in_training),
    ("L_gradient", PLAIN, gradient),
    ("L_momentum", PLAIN, momentum),
    ("L_mode", PLAIN, mode),
    ("L_setting", PLAIN, in_place),
    ("C_hook", Program(("hook",), seed=2), hook_lost),
]


def pruned(monkeypatch: pytest.MonkeyPatch, net: nn.Module, program: Program, change: Change):
    """Prunes with surgery that does `change` in the end."""

    def changed(net: nn.Module, *rest: Any) -> nn.Module:
        small = slim(net, *rest)
        with torch.no_grad():
            return change(net, small) or small

    monkeypatch.setattr("prunebench.run.step.slim", changed)
    return prunebench.prune(net, program.example(1), criterion="l1", uniform=0.5, scope="all")


@pytest.mark.parametrize("name", [name for name, _, _ in MUTANTS])
def test_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, program, change = next(mutant for mutant in MUTANTS if mutant[0] == name)
    with pytest.raises(PrunebenchError):
        pruned(monkeypatch, program.build(), program, change)


@pytest.mark.parametrize("count", ["macs", "params"])
def test_a_wrong_count_is_caught(count: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = getattr(ChannelMap, count)
    monkeypatch.setattr(ChannelMap, count, lambda cmap, plan: right(cmap, plan) * 2 + 1)
    with pytest.raises(PrunebenchError, match="were planned"):
        prunebench.prune(
            PLAIN.build(), PLAIN.example(1), criterion="l1", **{count: 0.5}, scope="all"
        )
