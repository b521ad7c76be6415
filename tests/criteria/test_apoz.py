"""APoZ, compared with plain counting, and its refusal of other activations."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import prunebench.channels
from prunebench.contracts import Evidence
from prunebench.criteria.apoz import Apoz
from prunebench.errors import ConfigError, PruningError

#: a channel map that knows no layers
UNKNOWN = SimpleNamespace(tape=SimpleNamespace(calls=[]))


@pytest.fixture
def evidence(monkeypatch):
    def look(takers, network, cmap, images, point, *, run):
        assert point == "activation"
        assert len(images) <= 3
        for take in takers.values():
            take(images)

    monkeypatch.setattr(prunebench.channels, "look", look)

    def make(features, function="relu"):
        place = SimpleNamespace(function=function) if function else None
        group = SimpleNamespace(name="conv1", size=features.shape[1], activation=place)
        labels = torch.zeros(len(features), dtype=torch.int64)
        return Evidence(nn.Identity(), UNKNOWN, (group,), features, labels, 0)

    return make


def test_the_channel_that_is_zero_most_often_goes_first(evidence):
    features = torch.tensor([[[[1.0, 0.0]], [[0.0, 0.0]], [[2.0, 3.0]]]])
    found = Apoz(num_samples=1, chunk=3).rank(evidence(features))["conv1"]
    assert found.scores.tolist() == [0.5, 0.0, 1.0]


def test_equals_counting_one_by_one(evidence):
    features = torch.randn(8, 5, 3, 2, generator=torch.Generator().manual_seed(0)).relu()
    found = Apoz(num_samples=7, chunk=3).rank(evidence(features))["conv1"]
    for channel in range(5):
        values = features[:7, channel].flatten().tolist()
        assert found.scores[channel].item() == sum(value != 0 for value in values) / len(values)


@pytest.mark.parametrize("function", ["gelu", "silu", "batch_norm", None])
def test_layers_without_relu_are_refused(evidence, function):
    with pytest.raises(PruningError, match=f"conv1 is followed by {function or 'nothing'}; leave"):
        Apoz(num_samples=1, chunk=1).rank(evidence(torch.zeros(1, 2, 1, 1), function))


def test_a_hardtanh_is_a_relu6_only_above_zero(evidence):
    above = torch.tensor([[[[1.0, 0.0]], [[0.0, 6.0]]]])
    found = Apoz(num_samples=1, chunk=1).rank(evidence(above, "hardtanh"))["conv1"]
    assert found.scores.tolist() == [0.5, 0.5]
    with pytest.raises(PruningError, match="conv1 is followed by a hardtanh with values below"):
        Apoz(num_samples=1, chunk=1).rank(evidence(above - 0.5, "hardtanh_"))


def test_ranges():
    assert Apoz(num_samples=5, chunk=1).images_needed == 5
    with pytest.raises(ConfigError, match="num_samples must be at least 1, got 0"):
        Apoz(num_samples=0, chunk=1)
    with pytest.raises(ConfigError, match="chunk must be at least 1, got 0"):
        Apoz(num_samples=1, chunk=0)
    with pytest.raises(ConfigError, match="above must not be negative, got -1"):
        Apoz(above=-1)


@pytest.mark.parametrize("above", [0.5, 1.0, 1.5])
def test_what_is_zero_more_often_than_the_mean_and_deviations_goes(evidence, above):
    """The decision of the paper, in plain Python."""
    features = torch.randn(6, 12, 3, 2, generator=torch.Generator().manual_seed(1))
    features = (features + torch.linspace(-1, 1, 12)[:, None, None]).relu()
    found = Apoz(num_samples=6, chunk=3, above=above).rank(evidence(features))["conv1"]
    zeros = [sum(v == 0 for v in features[:, c].flatten().tolist()) / 36 for c in range(12)]
    mean = sum(zeros) / 12
    deviation = (sum((z - mean) ** 2 for z in zeros) / 12) ** 0.5
    kept = tuple(c for c in range(12) if not zeros[c] > mean + above * deviation)
    assert found.kept == kept
    assert 0 < len(kept) < 12


def test_a_layer_of_equals_is_not_trimmed(evidence):
    features = torch.zeros(3, 7, 1, 3)
    features[..., :1] = 1.0
    assert Apoz(num_samples=3, chunk=3).rank(evidence(features))["conv1"].kept == tuple(range(7))
