"""FOAD, compared with plain loops and the worked numbers of its specification; its invariants."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import prunebench.channels
from prunebench.analysis.similarity import similarity
from prunebench.contracts import Evidence
from prunebench.criteria.foad import Foad, ranking, select
from prunebench.errors import ConfigError, PruningError

#: a channel map that knows no layers
UNKNOWN = SimpleNamespace(tape=SimpleNamespace(calls=[]))


def oracle_similarity(features):
    maps = features.double().flatten(2).tolist()
    size = len(maps[0])
    table = [[0.0] * size for _ in range(size)]
    for i in range(size):
        for j in range(size):
            terms = [
                1
                / (
                    1
                    + math.sqrt(
                        math.fsum((a - b) ** 2 for a, b in zip(one[i], one[j], strict=True))
                    )
                )
                for one in maps
            ]
            table[i][j] = math.fsum(terms) / len(terms)
    return table


def oracle_select(table, t, s, rule):
    size, kept, removed = len(table), [], []
    for i in range(size):
        if i in removed:
            continue
        kept.append(i)
        scores = [0.0 if j == i or j in removed else table[i][j] for j in range(size)]
        if rule == "strict":
            ranked = [j for j in range(size) if j not in kept and j not in removed]
            for j in sorted(ranked, key=lambda j: -scores[j])[:t]:
                if scores[j] >= s:
                    removed.append(j)
            continue
        ranked = sorted(range(size), key=lambda j: -scores[j])
        first = 0
        if rule == "v2022":
            twins = [j for j in range(size) if j not in kept and scores[j] >= 1]
            removed += twins
            first = len(twins)
        for j in ranked[first:t]:
            if j not in kept and j not in removed and (rule == "v2022" or scores[j] >= s):
                removed.append(j)
    return kept


def example():
    features = torch.zeros(2, 6, 1, 2)
    features[0, :, 0] = torch.tensor(
        [(0.0, 0.0), (3.0, 4.0), (0.0, 1.0), (3.0, 4.0), (0.0, 2.0), (6.0, 8.0)]
    )
    features[1, 3, 0, 1] = 1.0
    return features


def dead_group():
    return torch.tensor([0.0, 5, 0, 0, 0, 9, 0, 0]).reshape(1, 8, 1, 1)


def test_similarity_of_the_worked_example():
    expected = [
        [1, 0.58333, 0.75000, 0.33333, 0.66667, 0.54545],
        [0.58333, 1, 0.59537, 0.75000, 0.60856, 0.58333],
        [0.75000, 0.59537, 1, 0.34537, 0.75000, 0.54893],
        [0.33333, 0.75000, 0.34537, 1, 0.35856, 0.33333],
        [0.66667, 0.60856, 0.75000, 0.35856, 1, 0.55271],
        [0.54545, 0.58333, 0.54893, 0.33333, 0.55271, 1],
    ]
    table = similarity(example())
    assert table.dtype == torch.float64
    torch.testing.assert_close(table, torch.tensor(expected).double(), atol=5e-6, rtol=0)
    assert table[0, 1].item() == pytest.approx((1 / 6 + 1) / 2, abs=1e-7)
    assert table[1, 4].item() == pytest.approx((1 / (1 + math.sqrt(13)) + 1) / 2, abs=1e-7)


@pytest.mark.parametrize(
    ("t", "s", "kept"),
    [
        (1, 0.0, [0, 1, 4, 5]),
        (2, 0.0, [0, 1, 5]),
        (3, 0.0, [0, 3]),
        (2, 0.7, [0, 1, 4, 5]),
    ],
)
def test_selection_of_the_worked_example(t, s, kept):
    assert select(similarity(example()), t=t, s=s, rule="v2023") == kept


def test_the_result_depends_on_the_channel_order():
    kept = select(similarity(example().flip(1)), t=1)
    assert {5 - index for index in kept} == {0, 3, 4, 5}


@pytest.mark.parametrize(
    ("t", "kept"), [(1, [0, 1, 3, 4, 6, 7]), (2, [0, 1, 4, 7]), (3, [0, 1, 7])]
)
def test_dead_channels_are_hardly_thinned_by_the_2023_rule(t, kept):
    assert select(similarity(dead_group()), t=t) == kept


@pytest.mark.parametrize("t", [1, 2, 3])
def test_dead_channels_go_at_once_by_the_2022_rule(t):
    assert select(similarity(dead_group()), t=t, rule="v2022") == [0, 1]


def draw(seed):
    """Small features: noise or small integers, some dead, copied, or copied on one image only."""
    noise = torch.Generator().manual_seed(seed)

    def pick(low, high):
        return int(torch.randint(low, high, (1,), generator=noise))

    count, size, height, width = pick(1, 6), pick(1, 15), pick(1, 4), pick(1, 4)
    shape = (count, size, height, width)
    if seed % 3 == 0:
        features = torch.randint(0, 3, shape, generator=noise).float()
    else:
        features = torch.randn(shape, generator=noise)
        features = features.relu() if seed % 3 == 1 else features
    for _ in range(pick(0, 4)):
        features[:, pick(0, size)] = 0
    for _ in range(pick(0, 4)):
        features[:, pick(0, size)] = features[:, pick(0, size)]
    for _ in range(pick(0, 3)):
        image = pick(0, count)
        features[image, pick(0, size)] = features[image, pick(0, size)]
    return features


@pytest.mark.parametrize("part", range(8))
def test_fast_path_equals_the_oracle(part):
    for seed in range(part * 40, part * 40 + 40):
        features = draw(seed)
        slow = oracle_similarity(features)
        table = similarity(features)
        torch.testing.assert_close(table, torch.tensor(slow).double(), atol=2e-7, rtol=0)
        assert torch.equal(table, table.T)
        for rule in ("v2023", "v2022", "strict"):
            for t in (0, 1, 2, 3, 20):
                for s in (0.0, 0.3, 0.7, 1.0, 1.5):
                    fast = select(table, t=t, s=s, rule=rule)
                    assert fast == oracle_select(slow, t, s, rule), (seed, rule, t, s)


def test_many_channels_and_images_equal_the_oracle():
    features = torch.randn(9, 150, 2, 2, generator=torch.Generator().manual_seed(0)).relu()
    features[:, 100:110] = features[:, 20:30]
    slow, table = oracle_similarity(features), similarity(features)
    for t in (1, 2, 5):
        for rule in ("v2023", "v2022", "strict"):
            assert select(table, t=t, rule=rule) == oracle_select(slow, t, 0.0, rule)


def test_similarity_is_one_exactly_for_duplicates():
    features = torch.randn(37, 200, 3, 5, generator=torch.Generator().manual_seed(1)).relu()
    features[:, 150] = features[:, 3]
    features[:, 7] = -0.0 * features[:, 7]
    features[:, 190] = 0.0
    near = features[:, 3].clone()
    near[0, 0, 0] += 1e-6
    features[:, 60] = near
    table = similarity(features)
    ones = {(i, j) for i, j in (table == 1).nonzero().tolist() if i < j}
    assert ones == {(3, 150), (7, 190)}
    assert table[3, 60] > 1 - 1e-6
    assert torch.equal(table[3], table[150])
    assert torch.equal(table.diagonal(), torch.ones(200).double())


def test_similarity_keeps_its_value_under_what_should_not_matter():
    noise = torch.Generator().manual_seed(2)
    features = torch.randn(6, 10, 3, 4, generator=noise)
    table = similarity(features)
    shuffled = features[torch.randperm(6, generator=noise)].flatten(2)
    shuffled = shuffled[:, :, torch.randperm(12, generator=noise)].reshape(6, 10, 4, 3)
    shifted = features + torch.randn(6, 1, 3, 4, generator=noise)
    torch.testing.assert_close(similarity(shuffled), table, atol=1e-7, rtol=0)
    torch.testing.assert_close(similarity(shifted), table, atol=1e-6, rtol=0)
    assert (similarity(2 * features) - table).abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_similarity_of_other_types_equals_the_oracle(dtype):
    features = torch.randn(3, 6, 4, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    features[:, 4] = features[:, 1]
    table = similarity(features)
    assert table[4, 1] == 1
    expected = torch.tensor(oracle_similarity(features), dtype=torch.float64)
    torch.testing.assert_close(table, expected, rtol=1e-6, atol=0)


def test_similarity_of_linear_features_reads_them_as_one_pixel_maps():
    features = torch.randn(6, 10, generator=torch.Generator().manual_seed(2))
    assert torch.equal(similarity(features), similarity(features[:, :, None, None]))


@pytest.mark.parametrize("seed", range(10))
def test_bounds(seed):
    features = torch.randn(4, 23, 2, 2, generator=torch.Generator().manual_seed(seed)).relu()
    table = similarity(features)
    for t in (1, 2, 3, 7):
        kept = select(table, t=t)
        assert kept[0] == 0
        assert kept == sorted(set(kept))
        assert math.ceil(23 / (t + 1)) <= len(kept) <= 23
        assert len(select(table, t=t, rule="strict")) == math.ceil(23 / (t + 1))
    everything = list(range(23))
    assert select(table, t=0) == everything
    assert select(table, t=3, s=1.01) == everything
    assert select(table, t=1000) == select(table, t=23)


def test_nan_features_remove_nothing():
    features = torch.full((2, 5, 2, 2), torch.nan)
    assert select(similarity(features), t=2) == [0, 1, 2, 3, 4]
    features = torch.rand(2, 5, 2, 2, generator=torch.Generator().manual_seed(0))
    features[:, 3] = torch.nan
    assert 3 in select(similarity(features), t=4)


def test_ranking_removes_in_rounds_of_the_strict_rule():
    # Worked by hand from the table of the worked example, t=1. Round 1: 0 removes 2 (.75), 1
    # removes 3 (.75), 4 removes 5 (.55). Left 0, 1, 4: 0 removes 4 (.67). Left 0, 1: 0 removes 1.
    order = ranking(similarity(example()), t=1).argsort().tolist()
    assert order == [2, 3, 5, 4, 1, 0]


def test_ranking_puts_a_single_round_survivors_last():
    table = similarity(torch.randn(4, 20, 2, 2, generator=torch.Generator().manual_seed(3)))
    for t in (0, 1, 3):
        places = ranking(table, t=t)
        assert sorted(places.tolist()) == list(range(20))
        kept = select(table, t=max(t, 1), rule="strict")
        assert set(places.argsort().tolist()[-len(kept) :]) == set(kept)


def settings(**changes):
    values = {"rule": "v2023", "t": 1, "s": 0.0, "num_samples": 6, "point": "block", "chunk": 4}
    return Foad(**{**values, **changes})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": "v2024"}, "rule must be one of v2023, v2022, strict; got 'v2024'"),
        ({"point": "conv"}, "point must be one of block, activation; got 'conv'"),
        ({"t": -1}, "t must not be negative, got -1"),
        ({"s": -0.1}, "s must not be negative, got -0.1"),
        ({"rule": "v2022", "s": 0.5}, "s has no effect under rule=v2022"),
        ({"rule": "v2022", "s_at": {"a": 0.5}}, "s has no effect under rule=v2022"),
        ({"t_at": {"a": -1}}, "t must not be negative, got -1"),
        ({"s_at": {"a": -0.5}}, "s must not be negative, got -0.5"),
        ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
        ({"chunk": 0}, "chunk must be at least 1, got 0"),
    ],
)
def test_ranges(change, message):
    with pytest.raises(ConfigError, match=message):
        settings(**change)


def evidence(features, monkeypatch):
    """An evidence whose images are the features themselves."""

    def look(takers, network, cmap, images, point, *, run):
        assert point == "block"
        assert len(images) <= 4
        for take in takers.values():
            take(images)

    monkeypatch.setattr(prunebench.channels, "look", look)
    group = SimpleNamespace(name="conv1", size=features.shape[1])
    labels = torch.zeros(len(features), dtype=torch.int64)
    return Evidence(torch.nn.Identity(), UNKNOWN, (group,), features, labels, 0)


def test_rank_uses_the_first_images_in_chunks(monkeypatch):
    features = torch.randn(9, 12, 2, 2, generator=torch.Generator().manual_seed(4)).relu()
    features[:, 5] = features[:, 2]
    found = settings(t=2).rank(evidence(features, monkeypatch))["conv1"]
    table = similarity(features[:6])
    assert found.kept == tuple(select(table, t=2))
    assert torch.equal(found.scores, ranking(table, t=2))


def test_channels_equal_on_one_chunk_only_are_no_duplicates(monkeypatch):
    features = torch.zeros(6, 3, 1, 1)
    features[5, 1] = 1e-6
    found = settings(t=1, rule="v2022").rank(evidence(features, monkeypatch))["conv1"]
    # 0 removes its duplicate 2 and is then out of removals; 1 finds only kept ones
    assert found.kept == (0, 1)


def test_layers_have_their_own_t_and_s(monkeypatch):
    features = torch.randn(6, 30, 2, 2, generator=torch.Generator().manual_seed(2)).relu()
    facts = evidence(features, monkeypatch)
    groups = tuple(SimpleNamespace(name=f"conv{n}", size=30) for n in (1, 2, 3))
    facts = replace(facts, groups=groups, cmap=SimpleNamespace(groups=groups, tape=UNKNOWN.tape))
    table = similarity(features)
    middle = float(table.median())
    ranks = settings(t_at={"conv2": 3, "conv*": 1}, s_at={"conv3": middle}).rank(facts)
    asked = {"conv1": (1, 0.0), "conv2": (3, 0.0), "conv3": (1, middle)}
    for name, (t, s) in asked.items():
        assert ranks[name].kept == tuple(oracle_select(table.tolist(), t, s, "v2023"))
    assert len({rank.kept for rank in ranks.values()}) == 3
    with pytest.raises(PruningError, match=r"criterion.t_at: 'fc' matches no group; groups: conv1"):
        settings(t_at={"fc": 2}).rank(facts)


def test_rank_refuses_features_that_are_not_finite(monkeypatch):
    features = torch.zeros(6, 3, 1, 1)
    features[1, 1] = torch.inf
    with pytest.raises(PruningError, match="the feature maps of conv1 are not finite"):
        settings().rank(evidence(features, monkeypatch))
