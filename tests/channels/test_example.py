"""Networks with several inputs, and with outputs of any class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import prunebench
from prunebench.channels import Plan, slim, trace, verify
from prunebench.errors import PruningError

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@dataclass
class Fields:
    logits: Tensor


class Own:
    def __init__(self, logits: Tensor) -> None:
        self.logits, self.me = logits, self  # a circle


class Slots:
    __slots__ = ("logits",)

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


class Table(Mapping[str, Any]):
    def __init__(self, logits: Tensor) -> None:
        self.held = [logits]

    def __getitem__(self, key: str) -> Any:
        return self.held[0]

    def __iter__(self) -> Any:
        return iter(["logits"])

    def __len__(self) -> int:
        return 1


WRAPPED: dict[str, Callable[[Tensor], Any]] = {
    "dataclass": Fields,
    "namespace": lambda t: SimpleNamespace(deep=[{"logits": t}]),
    "own": Own,
    "slots": Slots,
    "mapping": Table,
    "distribution": lambda t: torch.distributions.Categorical(logits=t, validate_args=False),
    "set": lambda t: (1, frozenset([Own(t)])),
}


class Classifier(nn.Module):
    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.a, self.fc, self.wrap = nn.Conv2d(3, 8, 3), nn.Linear(8, 10), wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.fc(torch.relu(self.a(x)).mean((2, 3))))


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_classifier_keeps_its_classes_whatever_it_returns(kind: str) -> None:
    network = Classifier(WRAPPED[kind]).eval()
    cmap = trace(network, IMAGES)
    assert [group.name for group in cmap.groups] == ["a"]
    plan = Plan({"a": [1, 4, 6]})
    slimmed = slim(network, cmap, plan)
    assert slimmed.fc.out_features == 10
    assert verify(network, slimmed, cmap, plan, IMAGES) < 1e-6
    with torch.no_grad():
        slimmed.fc.weight[7] += 1
    assert verify(network, slimmed, cmap, plan, IMAGES) > 1e-3  # it is compared


@pytest.mark.parametrize("nothing", [None, {}, "done", 3])
def test_a_forward_that_returns_no_tensor_is_refused(nothing: Any) -> None:
    with pytest.raises(PruningError, match="returns no tensor but a "):
        trace(Classifier(lambda t: nothing).eval(), IMAGES)


def test_a_comparison_of_nothing_is_an_error_and_other_shapes_are_infinitely_far() -> None:
    network = Classifier(lambda t: t).eval()
    cmap = trace(network, IMAGES)
    with pytest.raises(PruningError, match="there is nothing to compare"):
        verify(network, network, cmap, Plan({}), IMAGES[:0])
    fewer = Classifier(lambda t: t[:, 1:]).eval()
    assert verify(network, fewer, cmap, Plan({}), IMAGES) == float("inf")


class TwoInputs(nn.Module):
    """An image and one vector per image; `scale` is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.t = nn.Conv2d(3, 8, 3), nn.Linear(4, 8)
        self.b, self.fc = nn.Conv2d(8, 6, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor, t: Tensor, scale: float = 1.0) -> Tensor:
        x = torch.relu(self.a(x) + scale * self.t(t)[:, :, None, None])
        return self.fc(torch.relu(self.b(x)).mean((2, 3)))


VECTORS = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
EXAMPLES = {
    "tuple": (IMAGES, VECTORS),
    "list": [IMAGES, VECTORS],
    "dict": {"t": VECTORS, "x": IMAGES},
    "with a number": (IMAGES, VECTORS, 0.5),
}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_several_inputs_are_one_example(kind: str) -> None:
    network, example = TwoInputs().eval(), EXAMPLES[kind]
    cmap = trace(network, example)
    assert {group.name: group.size for group in cmap.groups} == {"a": 8, "b": 6}
    plan = Plan({"a": [0, 3, 5], "b": [1, 2]})
    slimmed = slim(network, cmap, plan)
    assert slimmed.t.out_features == 3
    assert verify(network, slimmed, cmap, plan, example) < 1e-6
    small = prunebench.prune(network, example, macs=0.7, scope="all")
    assert small(IMAGES, VECTORS).shape == (2, 3)


def test_inputs_that_do_not_count_images_keep_their_shape() -> None:
    class Anchored(TwoInputs):
        def forward(self, x: Tensor, t: Tensor, scale: float = 1.0) -> Tensor:
            assert t.shape == (5, 4)
            return super().forward(x, t.mean(0, keepdim=True), scale)

    assert len(trace(Anchored().eval(), (IMAGES, torch.randn(5, 4))).groups) == 2


@pytest.mark.parametrize(
    ("example", "says"),
    [
        (torch.randn(1, 4, 8, 8), r"a \(Conv2d\) is given \[1, 4, 8, 8\] float32, has a weight"),
        (torch.randn(3, 8, 8), r"the example \(\[3, 8, 8\] float32\)"),
        (torch.randn(1, 3, 8, 8).double(), r"a \(Conv2d\).* float64.* float32"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), r"a \(Conv2d\).* int64.* float32"),
        (torch.randn(0, 3, 8, 8), "there is nothing to compare"),
        ((1, 3, 8, 8), "the example must be a tensor, or a tuple"),
        ("image.png", "the example must be a tensor, or a tuple"),
        ({"y": IMAGES}, "unexpected keyword argument 'y'"),
    ],
)
def test_an_example_that_does_not_fit_is_one_sentence(example: Any, says: str) -> None:
    with pytest.raises(PruningError, match=says) as caught:
        prunebench.prune(Classifier(lambda t: t).eval(), example)
    assert "\n" not in str(caught.value)
