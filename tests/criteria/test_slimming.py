"""Network Slimming's score, compared with batch norms read by hand."""

import pytest
import torch
from torch import nn

from prunebench.channels import trace
from prunebench.contracts import Evidence
from prunebench.criteria.slimming import Slimming
from prunebench.errors import PruningError


def rank(network):
    images = torch.zeros(1, 3, 6, 6)
    cmap = trace(network.eval(), images)
    facts = Evidence(network, cmap, tuple(cmap.groups), images, torch.zeros(1).long(), 0)
    return Slimming().rank(facts)


def test_score_is_the_size_of_gamma():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    network[1].weight.data = torch.tensor([0.5, -2.0, 0.0, 1.0])
    found = rank(network)["0"]
    assert found.scores.tolist() == [0.5, 2.0, 0.0, 1.0]
    assert found.scores.dtype == torch.float64
    assert found.kept is None


def test_several_norms_on_one_stream_count_equally():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.stem_norm = nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)
            self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)
            self.fc = nn.Linear(2, 2)

        def forward(self, x):
            x = self.stem_norm(self.stem(x)).relu()
            return self.fc((x + self.norm(self.conv(x))).relu().mean((2, 3)))

    network = Block()
    network.stem_norm.weight.data = torch.tensor([1.0, 2.0])
    network.norm.weight.data = torch.tensor([-3.0, 0.0])
    assert rank(network)["stem"].scores.tolist() == [2.0, 1.0]


@pytest.mark.parametrize("norm", [nn.Identity(), nn.BatchNorm2d(4, affine=False)])
def test_a_layer_without_a_scale_is_refused(norm):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Conv2d(4, 2, 1))
    with pytest.raises(PruningError, match="needs a norm with a scale behind 0, and there is none"):
        rank(network)
