"""apoz, foad and hrank on a network whose feature maps are computed layer by layer."""

import pytest
import torch
from torch import nn

from prunebench.analysis.similarity import similarity
from prunebench.channels import trace
from prunebench.contracts import Evidence
from prunebench.criteria.apoz import Apoz
from prunebench.criteria.foad import Foad, ranking, select
from prunebench.criteria.hrank import Hrank, ranks
from prunebench.errors import PruningError


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 9, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(9 * 16, 7), nn.ReLU(), nn.Linear(7, 2),
    )  # fmt: skip
    network[1].running_mean.normal_()
    return network.eval()


def evidence(network):
    images = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    cmap = trace(network, images[:1])
    labels = torch.zeros(12, dtype=torch.int64)
    return Evidence(network, cmap, tuple(cmap.groups), images, labels, 0)


@torch.no_grad()
def maps(network, images, last):
    found = network[: last + 1](images)
    return found if found.dim() == 4 else found[:, :, None, None]


@pytest.mark.parametrize(
    ("point", "after"),
    [("block", {"0": 3, "4": 5, "7": 8}), ("activation", {"0": 2, "4": 5, "7": 8})],
)
def test_foad_compares_the_maps_behind_activation_or_pooling(network, point, after):
    facts = evidence(network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    settings = {"rule": "v2023", "t": 2, "s": 0.0, "num_samples": 10, "point": point, "chunk": 4}
    found = Foad(**settings).rank(facts)
    assert set(found) == set(after)
    for name, last in after.items():
        table = similarity(maps(network, facts.images[:10], last))
        assert found[name].kept == tuple(select(table, t=2))
        assert torch.equal(found[name].scores, ranking(table, t=2))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not network.training


def test_apoz_and_hrank_read_right_behind_the_activation(network):
    facts = evidence(network)
    alive = Apoz(num_samples=10, chunk=4).rank(facts)
    full = Hrank(num_samples=10, chunk=4).rank(facts)
    for name, last in {"0": 2, "4": 5, "7": 8}.items():
        seen = maps(network, facts.images[:10], last)
        expected = (seen != 0).double().mean((0, 2, 3))
        torch.testing.assert_close(alive[name].scores, expected)
        torch.testing.assert_close(full[name].scores, ranks(seen).double().mean(0))


def test_apoz_refuses_a_network_with_another_activation(network):
    network[5] = nn.GELU()
    with pytest.raises(PruningError, match="and 4 is followed by gelu; leave it out with"):
        Apoz(num_samples=4, chunk=4).rank(evidence(network))
