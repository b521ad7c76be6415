"""AOFP's estimators, and its greedy removal compared with brute force."""

import itertools

import pytest
import torch
from torch import Tensor

from prunebench.criteria.aofp.search import Search, greedy, mean_damage, predicted, ridge_damage


def halves(draws: int, channels: int, seed: int = 0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    search = Search.over(channels, draws, torch.device("cpu"))
    for row in range(draws):
        search.note(row, search.pick(source))
    return search.masks


def pearson(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.double(), b.double()]))[0, 1])


@pytest.mark.parametrize(("draws", "channels"), [(64, 32), (256, 32), (256, 128), (1024, 512)])
def test_the_mean_score_correlates_as_its_law_says(draws, channels):
    found = []
    for seed in range(12 if channels < 512 else 4):
        truth = torch.rand(channels, generator=torch.Generator().manual_seed(seed)).double()
        masks = halves(draws, channels, seed)
        found.append(pearson(mean_damage(masks, masks.double() @ truth), truth))
    law = (draws / (draws + channels)) ** 0.5
    assert sum(found) / len(found) == pytest.approx(law, abs=0.04)


def test_regression_ranks_far_better_than_the_mean_on_the_same_draws():
    truth = torch.rand(64, generator=torch.Generator().manual_seed(0)).double() ** 4
    masks = halves(256, 64)
    noise = 0.2 * torch.randn(256, generator=torch.Generator().manual_seed(1)).double()
    damages = masks.double() @ truth + noise
    slopes = ridge_damage(masks, damages, strength=0.1)
    assert pearson(slopes, truth) > 0.97 > pearson(mean_damage(masks, damages), truth)
    chosen = truth.argsort()[:32]
    assert predicted(masks, damages, slopes, chosen) == pytest.approx(
        float(truth[chosen].sum()), abs=0.8
    )


def test_mean_damage_by_hand():
    masks = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 1, 0]], dtype=torch.bool)
    found = mean_damage(masks, torch.tensor([1.0, 2.0, 6.0]))
    assert found.tolist() == [1.5, 3.5, 4.0, torch.inf]


def test_draws_are_half_of_the_search_set_and_never_leave_it():
    search = Search.over(9, 4, torch.device("cpu"))
    search.narrow(torch.tensor([7, 2, 5, 1, 8]))
    assert search.granularity == 2
    source = torch.Generator().manual_seed(0)
    seen = {tuple(search.pick(source).tolist()) for _ in range(200)}
    assert seen == set(itertools.combinations((1, 2, 5, 7, 8), 2))
    search.confirm(torch.tensor([8, 1]))
    assert search.pick(source).tolist() == [1, 8]


def test_search_survives_removal_down_to_one():
    search = Search.over(3, 4, torch.device("cpu"))
    assert search.granularity == 1
    search.remove(torch.tensor([1]))
    assert (search.space.tolist(), search.granularity) == ([0, 2], 1)
    search.remove(torch.tensor([0]))
    assert (search.space.tolist(), search.granularity, search.width) == ([2], 1, 1)


def test_a_search_goes_on_from_its_state():
    search = Search.over(6, 5, torch.device("cpu"))
    search.remove(torch.tensor([3]))
    search.note(0, torch.tensor([0, 1]))
    search.damages[0], search.draws, search.fails = 0.25, 1, 2
    other = Search.over(6, 5, torch.device("cpu"))
    other.load_state_dict(search.state_dict())
    for name, value in search.state_dict().items():
        found = other.state_dict()[name]
        assert torch.equal(found, value) if isinstance(value, Tensor) else found == value


def test_greedy_takes_the_least_rise_each_time():
    source = torch.Generator().manual_seed(2)
    vectors = torch.randn(6, 4, generator=source).double()
    gram = vectors @ vectors.T
    chosen, damage = greedy(gram, torch.arange(6), 3, lambda damage: True)
    picked: list[int] = []
    for _ in range(3):
        costs = {
            c: float(vectors[[*picked, c]].sum(0).square().sum())
            for c in range(6)
            if c not in picked
        }
        picked.append(min(costs, key=costs.__getitem__))
    assert chosen.tolist() == picked
    assert damage == pytest.approx(float(vectors[picked].sum(0).square().sum()))
    few, held = greedy(gram, torch.arange(6), 6, (damage - 1e-9).__ge__)
    assert held <= damage
    assert len(few) < 3
    assert greedy(gram, torch.arange(6), 6, (0.0).__ge__)[0].tolist() == []
