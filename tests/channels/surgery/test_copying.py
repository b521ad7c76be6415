"""What a copy takes along: modes, notes on parameters, nothing that modules leave out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from torchvision.models.feature_extraction import create_feature_extractor

import prunebench
from prunebench.channels import Plan, slim, trace

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Its dropout is part of the code, so that the graphs of training and evaluation differ."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.c(self.b(dropout(self.a(x), 0.5, self.training)))
        return found


class Caching(Net):
    """Copies of it have no cache."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "cache"}


def test_a_feature_extractor_runs_the_graph_of_its_mode() -> None:
    whole = create_feature_extractor(Net(), ["b", "c"])
    small = prunebench.prune(whole.eval(), X, uniform=0.5)
    assert not small.training
    assert torch.equal(small(X)["c"], small(X)["c"])
    small.train()
    assert not torch.equal(small(X)["c"], small(X)["c"])


def test_what_a_module_leaves_out_of_its_copies_is_no_difference() -> None:
    small = prunebench.prune(Caching(), X, uniform=0.5)
    assert "cache" not in vars(small)


def test_what_is_noted_on_parameters_goes_along() -> None:
    model = Net()
    weight: Any = model.a.weight
    weight.no_decay, weight.options = True, {"lr": 0.1}
    weight.mask = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 3, 3)
    weight.module = model  # no number, and no word
    cut: Any = slim(model, trace(model, X), Plan({"a": [1, 5]})).a.weight  # type: ignore[union-attr]
    assert (cut.no_decay, cut.options) == (True, {"lr": 0.1})
    assert cut.options is not weight.options
    assert cut.mask[:, 0, 0, 0].tolist() == [1, 5]
    assert not hasattr(cut, "module")


@pytest.mark.parametrize("hook", ["register_hook", "register_post_accumulate_grad_hook"])
def test_hooks_on_gradients_are_told_to_stay_behind(hook: str) -> None:
    model = Net()
    assert prunebench.prune(model, X).report.notes == []
    getattr(model.a.weight, hook)(lambda _: None)
    [note] = prunebench.prune(model, X).report.notes
    assert note.startswith("a.weight has hooks on the gradient that stay behind")
