"""The oracle must notice surgery that breaks one promise, and name it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from drawn.oracle import CUT, DAMAGED, FROZEN, REFUSED, TRACEBACK, WRONG, Surgery, judge
from drawn.program import Program
from torch import nn

from prunebench.channels import slim, trace
from prunebench.errors import PruningError

NET = Program(("residual", "depthwise"))


def after_slim(change: Callable[[nn.Module, nn.Module], Any]) -> Surgery:
    """Returns surgery that does `change` to (dense, slim network) in the end."""

    def changed(net: nn.Module, *rest: Any) -> nn.Module:
        small = slim(net, *rest)
        with torch.no_grad():
            return change(net, small) or small

    return Surgery(slim=changed)


def refuse(text: str) -> Surgery:
    """Returns surgery that refuses in these words."""

    def refused(*_: Any) -> nn.Module:
        raise PruningError(text)

    return Surgery(slim=refused)


def frozen(reason: str) -> Surgery:
    """Returns surgery that freezes everything for this reason."""

    def found(*given: Any) -> Any:
        return replace(trace(*given), groups=[], frozen={"stem.0": reason} if reason else {})

    return Surgery(trace=found)


def swap_rows(net: nn.Module, small: nn.Module) -> None:
    small.stem[0].weight.copy_(small.stem[0].weight.roll(1, 0))


def another_number(net: nn.Module, small: nn.Module) -> None:
    small.stem[0].weight[0, 0, 0, 0] += 1e-6


def forget_bias(net: nn.Module, small: nn.Module) -> None:
    small.stem[0].bias.zero_()


def wrong_variance(net: nn.Module, small: nn.Module) -> None:
    small.stem[1].running_var.copy_(net.stem[1].running_var[: len(small.stem[1].running_var)])


def view(net: nn.Module, small: nn.Module) -> None:
    small.fc.bias = nn.Parameter(net.fc.bias.detach())


def original(net: nn.Module, small: nn.Module) -> None:
    small.forward = net.forward


def unpruned(net: nn.Module, small: nn.Module) -> nn.Module:
    return copy.deepcopy(net)


def mode(net: nn.Module, small: nn.Module) -> None:
    small.stem[1].train()


def gradient(net: nn.Module, small: nn.Module) -> None:
    small.stem[0].weight.requires_grad_(False)


def output(net: nn.Module, small: nn.Module) -> None:
    small.fc.weight, small.fc.bias = (nn.Parameter(p[1:]) for p in small.fc.parameters())


def dense_weight(net: nn.Module, small: nn.Module) -> None:
    net.fc.weight[0, 0] += 1


def dense_buffer(net: nn.Module, small: nn.Module) -> None:
    net.stem[1].running_mean = net.stem[1].running_mean.to("meta")


def dense_attribute(net: nn.Module, small: nn.Module) -> None:
    net.found["x"] = 1


def random_numbers(net: nn.Module, small: nn.Module) -> None:
    torch.rand(1)


def crash(net: nn.Module, small: nn.Module) -> None:
    raise KeyError("x")


@pytest.mark.parametrize("change", [
    swap_rows, another_number, forget_bias, wrong_variance, view, original, unpruned, mode,
    gradient, output,
])  # fmt: skip
def test_a_wrong_network_is_wrong(change: Callable[..., Any]) -> None:
    assert judge(NET, after_slim(change)).word == WRONG


@pytest.mark.parametrize("change", [dense_weight, dense_buffer, dense_attribute, random_numbers])
def test_a_changed_model_is_damaged(change: Callable[..., Any]) -> None:
    assert judge(NET, after_slim(change)).word == DAMAGED


@pytest.mark.parametrize(
    ("surgery", "word"),
    [
        (Surgery(), CUT),
        (refuse("conv1 cannot be cut: it counts channels"), REFUSED),
        (refuse("two\nlines"), WRONG),
        (refuse("no group is left; groups: "), WRONG),
        (frozen("the output of the network"), FROZEN),
        (frozen(""), WRONG),
        (frozen("<function relu at 0x7f33aa> is unknown"), WRONG),
        (after_slim(crash), TRACEBACK),
    ],
)  # fmt: skip
def test_words(surgery: Surgery, word: str) -> None:
    assert judge(NET, surgery).word == word


@pytest.mark.parametrize("count", ["macs", "params"])
def test_a_plan_that_counts_wrong_is_wrong(count: str) -> None:
    def miscount(*given: Any) -> Any:
        cmap = trace(*given)
        counted = getattr(cmap, count)
        object.__setattr__(cmap, count, lambda plan: counted(plan) + 1)
        return cmap

    assert judge(NET, Surgery(trace=miscount)).word == WRONG
