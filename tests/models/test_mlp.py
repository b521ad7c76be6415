"""The multi-layer perceptron: order of layers, and refused widths."""

import pytest
import torch
from torch import nn

from prunebench.errors import ConfigError
from prunebench.models.mlp import Mlp


def test_layers_alternate_and_end_without_relu():
    network = Mlp(widths=[5, 4]).build((2, 3, 3), 7)
    assert [name for name, _ in network.named_children()] == [
        "flatten", "fc1", "relu1", "fc2", "relu2", "fc3",
    ]  # fmt: skip
    shapes = [tuple(m.weight.shape) for m in network if isinstance(m, nn.Linear)]
    assert shapes == [(5, 18), (4, 5), (7, 4)]
    assert network(torch.rand(6, 2, 3, 3)).shape == (6, 7)


@pytest.mark.parametrize("widths", [[], [10, 0]])
def test_empty_layers_are_refused(widths):
    with pytest.raises(ConfigError, match="widths must be"):
        Mlp(widths=widths)
