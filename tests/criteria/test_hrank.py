"""HRank, compared with maps of known rank and ranks computed one by one."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import prunebench.channels
from prunebench.contracts import Evidence
from prunebench.criteria.hrank import Hrank, ranks
from prunebench.errors import ConfigError, PruningError

#: a channel map that knows no layers
UNKNOWN = SimpleNamespace(tape=SimpleNamespace(calls=[]))


def test_maps_of_known_rank():
    eye = torch.eye(4)
    outer = torch.outer(torch.arange(1.0, 5), torch.arange(1.0, 5))
    maps = torch.stack([torch.zeros(4, 4), outer, outer + eye, eye.diag().diag() * 0 + eye])
    maps[3, 3, 3] = 0
    assert ranks(maps[None]).tolist() == [[0, 1, 4, 3]]


def test_rank_does_not_depend_on_scale():
    maps = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    maps[:, 1, :, 1] = maps[:, 1, :, 0]
    assert ranks(maps).tolist() == [[4, 3, 4]] * 2
    assert torch.equal(ranks(1e-6 * maps), ranks(maps))


def test_one_pixel_maps_have_rank_nought_or_one():
    assert ranks(torch.tensor([[0.0, 2.0, -1.0]])).tolist() == [[0, 1, 1]]
    assert ranks(torch.tensor([[0.0, 2.0, -1.0]])[..., None, None]).tolist() == [[0, 1, 1]]


def test_mean_over_the_first_images_equals_one_by_one(monkeypatch):
    def look(takers, network, cmap, images, point, *, run):
        assert point == "activation"
        assert len(images) <= 2
        for take in takers.values():
            take(images)

    monkeypatch.setattr(prunebench.channels, "look", look)
    noise = torch.Generator().manual_seed(1)
    features = (torch.randn(6, 7, 4, 4, generator=noise) - 1).relu()
    group = SimpleNamespace(name="conv1", size=7, activation=None)
    facts = Evidence(nn.Identity(), UNKNOWN, (group,), features, torch.zeros(6).long(), 0)
    scores = Hrank(num_samples=5, chunk=2).rank(facts)["conv1"].scores
    for channel in range(7):
        expected = np.mean([np.linalg.matrix_rank(m.numpy()) for m in features[:5, channel]])
        assert scores[channel].item() == pytest.approx(expected)
    assert scores.unique().numel() > 2


class Shown(list):
    """Images that a training shows turned into noise of rank 4."""

    def augmented(self, seed):
        return torch.randn(len(self), 7, 4, 4, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("augmented", "rank"), [(False, 0), (True, 4)])
def test_ranks_of_augmented_images_are_those_of_what_the_training_shows(
    monkeypatch, augmented, rank
):
    def look(takers, network, cmap, images, point, *, run):
        for take in takers.values():
            take(torch.stack(list(images)))

    monkeypatch.setattr(prunebench.channels, "look", look)
    group = SimpleNamespace(name="conv1", size=7, activation=None)
    plain = Shown(torch.zeros(6, 7, 4, 4))
    facts = Evidence(nn.Identity(), UNKNOWN, (group,), plain, torch.zeros(6).long(), 0)
    scores = Hrank(num_samples=5, augmented=augmented, chunk=2).rank(facts)["conv1"].scores
    assert scores.tolist() == [rank] * 7


@pytest.mark.parametrize(("conv", "shape"), [(nn.Conv1d, (8,)), (nn.Conv3d, (2, 4, 4))])
def test_maps_of_one_or_three_dimensions_are_refused(conv, shape):
    net = nn.Sequential(conv(3, 6, 1), nn.ReLU(), conv(6, 2, 1))
    images = torch.randn(2, 3, *shape)
    cmap = prunebench.channels.trace(net, images)
    facts = Evidence(net, cmap, tuple(cmap.groups), images, torch.zeros(2).long(), 0)
    with pytest.raises(PruningError, match=f"channels of 0 hold {len(shape)}-d ones"):
        Hrank(num_samples=2, chunk=2).rank(facts)


def test_ranges():
    assert Hrank(num_samples=5, chunk=1).images_needed == 5
    with pytest.raises(ConfigError, match="num_samples must be at least 1, got 0"):
        Hrank(num_samples=0, chunk=1)
    with pytest.raises(ConfigError, match="chunk must be at least 1, got -1"):
        Hrank(num_samples=1, chunk=-1)
