"""The labelled forward on networks small enough to label by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunebench.channels.labels.forward import following, labelled_input
from prunebench.channels.labels.labeller import Labeller
from prunebench.channels.labels.rules import RULES
from prunebench.channels.labels.tape import Tape
from prunebench.channels.labels.tensors import along, labels_of, put, shrink
from prunebench.errors import PruningError


def followed(network: nn.Module, example: Tensor) -> tuple[Tape, Tensor]:
    """Returns the tape of one labelled forward and the labels of its result."""
    labeller = Labeller(network, Tape(), RULES)
    image = labelled_input(labeller, example)
    with following(labeller, network):
        return labeller.tape, labels_of(network(image))


def test_a_convolution_makes_labels_and_a_sigmoid_keeps_cut_channels_alive() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Sigmoid())
    tape, labels = followed(network, torch.zeros(1, 2, 4, 4))
    assert [ids.tolist() for ids in tape.made] == [[1, 2], [3, 4, 5]]
    assert labels.shape == (1, 3, 1, 1)
    assert labels.flatten().tolist() == [2 * 3 + 1, 2 * 4 + 1, 2 * 5 + 1]
    assert {key: ids.tolist() for key, ids in tape.reads.items()} == {
        ("0.weight", 0): [3, 4, 5], ("0.weight", 1): [1, 2], ("0.bias", 0): [3, 4, 5],
    }  # fmt: skip
    assert [ids.tolist() for ids, _ in tape.frozen] == [[1, 2]]


def test_an_addition_ties_its_operands() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            return x + self.b(x)

    tape, labels = followed(Residual(), torch.zeros(1, 1, 4, 4))
    assert [(a.tolist(), b.tolist()) for a, b in tape.ties] == [([2, 3], [4, 5])]
    assert labels.flatten().tolist() == [2 * 4, 2 * 5]  # either operand's would do


def test_a_labeller_follows_the_rules_it_is_handed() -> None:
    asked = []

    def note(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        asked.append(name)
        return labeller.run(func, args, kwargs)

    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    labeller = Labeller(network, Tape(), {"": note})
    image = torch.zeros(1, 2)
    with labeller:
        result = network(image)
    assert result.is_meta
    assert asked == ["linear", "relu"]


def test_what_cannot_run_without_data_is_named() -> None:
    class Typed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise TypeError("not today")

    network = nn.Sequential(Typed()).train()
    with pytest.raises(PruningError, match="0 cannot be followed without data: not today"):
        followed(network, torch.zeros(1, 2))
    assert network.training


def test_labels_take_no_more_room_than_they_need() -> None:
    labels = torch.arange(3).view(1, 3, 1).expand(4, 3, 5)
    assert shrink(labels).shape == (1, 3, 1)
    assert along(torch.arange(3), 1, 4).shape == (1, 3, 1, 1)
    t = torch.empty(2, 3)
    assert labels_of(t).shape == (1, 1)
    assert labels_of(put(t, along(torch.arange(3), 1, 2))).tolist() == [[0, 1, 2]]
