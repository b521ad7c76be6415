"""ThiNet's searches and rescaling, compared with plain loops over the samples."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from prunebench.channels import Plan, mask, slim, trace
from prunebench.contracts import Evidence
from prunebench.criteria.thinet import SEARCHES, Thinet, removal_order, rescale, search_path
from prunebench.errors import ConfigError, PruningError

X = np.array([[1, -1, 3, 0], [2, -2, 0, 1], [-1, 2, 1, 1]], dtype=np.float64)


def keep_error(x, kept):
    """Squared error of the unscaled sum, sample by sample."""
    return sum((row.sum() - sum(row[c] for c in kept)) ** 2 for row in x)


def remove_error(x, removed):
    return sum(sum(row[c] for c in removed) ** 2 for row in x)


def fit_error(x, kept):
    """Squared error of the best fit, by a solver that sees the samples."""
    y = x.sum(1)
    if not kept:
        return float(y @ y)
    weights = np.linalg.lstsq(x[:, kept], y, rcond=None)[0]
    return float(((y - x[:, kept] @ weights) ** 2).sum())


def slow_remove(x):
    removed, left = [], list(range(x.shape[1]))
    while left:
        errors = [remove_error(x, [*removed, c]) for c in left]
        removed.append(left.pop(errors.index(min(errors))))
    return removed


def slow_keep(x):
    kept, left = [], list(range(x.shape[1]))
    while left:
        errors = [keep_error(x, [*kept, c]) for c in left]
        kept.append(left.pop(errors.index(min(errors))))
    return kept[::-1]


def slow_omp(x):
    """The authors' loop: best single coefficient on the residual, then all fitted anew."""
    y = x.sum(1)
    kept, left, residual = [], list(range(x.shape[1])), y
    while left:
        norms = []
        for c in left:
            a = x[:, c] @ residual / (x[:, c] @ x[:, c])
            norms.append(((residual - a * x[:, c]) ** 2).sum())
        kept.append(left.pop(int(np.argmin(norms))))
        residual = y - x[:, kept] @ (np.linalg.pinv(x[:, kept]) @ y)
    return kept[::-1]


def slow_ols(x):
    kept, left = [], list(range(x.shape[1]))
    while left:
        errors = [fit_error(x, [*kept, c]) for c in left]
        kept.append(left.pop(int(np.argmin(errors))))
    return kept[::-1]


SLOW = {"remove": slow_remove, "keep": slow_keep, "omp": slow_omp, "ols": slow_ols}


def problem(seed):
    """Correlated integer samples, more of them than channels."""
    random = np.random.default_rng(seed)
    channels = int(random.integers(2, 13))
    factors = random.integers(-3, 4, size=(channels, channels))
    samples = random.integers(-6, 7, size=(40, channels))
    return (samples @ (factors + 4 * np.eye(channels, dtype=int))).astype(np.float64)


def test_the_worked_example():
    gram = X.T @ X
    assert gram.tolist() == [[6, -7, 2, 1], [-7, 9, -1, 0], [2, -1, 10, 1], [1, 0, 1, 2]]
    order, errors = search_path(gram, search="remove")
    assert (order[:2], errors[:2].tolist()) == ([3, 0], [2, 10])
    assert rescale(gram, [1, 2]).tolist() == pytest.approx([22 / 89, 109 / 89], rel=1e-12)
    assert fit_error(X, [1, 2]) == pytest.approx(361 / 89)
    order, errors = search_path(gram, search="keep")
    assert (order[::-1][:2], errors[::-1][1:3].tolist()) == ([2, 3], [5, 1])
    assert rescale(gram, [2, 3]).tolist() == pytest.approx([20 / 19, 28 / 19], rel=1e-12)
    order, errors = search_path(gram, search="omp")
    assert order[::-1][:2] == [2, 3]
    assert errors[1:3].tolist() == pytest.approx([9 / 19, 4.6])


def test_both_faces_of_the_objective_agree_for_every_subset():
    x = problem(5)
    gram = x.T @ x
    everyone = range(x.shape[1])
    for count in everyone:
        for removed in itertools.combinations(everyone, count):
            kept = [c for c in everyone if c not in removed]
            ones = np.isin(everyone, removed).astype(float)
            assert keep_error(x, kept) == remove_error(x, removed) == ones @ gram @ ones


@pytest.mark.parametrize("search", SEARCHES)
def test_orders_are_those_of_the_plain_loops(search):
    for seed in range(70):
        x = problem(seed)
        assert removal_order(torch.from_numpy(x.T @ x), search=search) == SLOW[search](x), seed


@pytest.mark.parametrize("search", SEARCHES)
def test_errors_are_those_of_the_subsets(search):
    for seed in range(20):
        x = problem(seed)
        order, errors = search_path(x.T @ x, search=search)
        for count, error in enumerate(errors.tolist(), start=1):
            if search in ("remove", "keep"):
                assert error == remove_error(x, order[:count])
            else:
                total = fit_error(x, [])
                assert error == pytest.approx(fit_error(x, order[count:]), abs=1e-9 * total)


def test_ties_go_to_the_lower_index():
    gram = np.eye(4)
    assert removal_order(gram, search="remove") == [0, 1, 2, 3]
    for search in ("keep", "omp", "ols"):
        assert removal_order(gram, search=search) == [3, 2, 1, 0]


@pytest.mark.parametrize("search", ["remove", "omp", "ols"])
def test_a_dead_channel_goes_first(search):
    x = problem(7)
    x[:, 1] = 0
    assert removal_order(x.T @ x, search=search)[0] == 1


@pytest.mark.parametrize("search", ["omp", "ols"])
def test_dependent_channels_are_kept_after_all_independent_ones(search):
    for seed in range(20):
        x = np.random.default_rng(seed).standard_normal((50, 8))
        x[:, 2] = 2 * x[:, 5]
        x[:, 7] = x[:, 0] - x[:, 3]
        kept = removal_order(x.T @ x, search=search)[::-1]
        assert np.linalg.matrix_rank(x[:, kept[:6]]) == 6
        assert kept[6:] == sorted(kept[6:])


@pytest.mark.parametrize("search", SEARCHES)
def test_fewer_samples_than_channels_give_a_whole_order(search):
    x = np.random.default_rng(0).standard_normal((5, 12))
    order, errors = search_path(x.T @ x, search=search)
    assert sorted(order) == list(range(12))
    assert np.isfinite(errors).all()
    if search in ("omp", "ols"):
        assert errors[6] == pytest.approx(0, abs=1e-9)  # five channels span five samples


@pytest.mark.parametrize("search", SEARCHES)
def test_nothing_but_dead_channels(search):
    assert sorted(removal_order(np.zeros((3, 3)), search=search)) == [0, 1, 2]
    assert rescale(np.zeros((3, 3)), [0, 2]).tolist() == [1, 1]


def test_rescaling_is_the_least_squares_fit():
    for seed in range(30):
        x = problem(seed)
        kept = sorted(removal_order(x.T @ x, search="remove")[x.shape[1] // 2 :])
        expected = np.linalg.lstsq(x[:, kept], x.sum(1), rcond=None)[0]
        assert rescale(x.T @ x, kept).numpy() == pytest.approx(expected, rel=1e-7, abs=1e-7)


def test_keeping_all_channels_changes_nothing():
    x = problem(3)
    assert rescale(x.T @ x, range(x.shape[1])).tolist() == [1.0] * x.shape[1]


def test_a_channel_makes_up_for_its_double():
    x = np.random.default_rng(0).standard_normal((30, 4))
    x[:, 0] = 2 * x[:, 1]
    gram = x.T @ x
    assert rescale(gram, [1, 2, 3]).tolist() == pytest.approx([3, 1, 1], rel=1e-9)
    assert rescale(gram, [0, 2, 3]).tolist() == pytest.approx([1.5, 1, 1], rel=1e-9)


def test_dead_and_doubled_channels_among_the_kept_ones():
    x = np.random.default_rng(0).standard_normal((30, 5))
    x[:, 1] = 0
    x[:, 2] = x[:, 0]
    x[:, 4] = 3 * x[:, 0]  # cut: 3 more of what the two equal channels carry
    weights = rescale(x.T @ x, [0, 1, 2, 3])
    assert weights.tolist() == pytest.approx([2.5, 1, 2.5, 1], rel=1e-6)
    assert weights[1] == 1


def test_one_channel_left_takes_the_best_factor():
    x = problem(11)
    best = x[:, 0] @ x.sum(1) / (x[:, 0] @ x[:, 0])
    assert rescale(x.T @ x, [0]).item() == pytest.approx(best, rel=1e-12)


def test_an_unknown_search_is_refused():
    with pytest.raises(ConfigError, match="search must be one of remove, keep, omp, ols"):
        removal_order(np.eye(2), search="best")


# -- through the criterion ---------------------------------------------------------------------


def thinet(**changes):
    values = {
        "search": "remove", "balance": False, "collect": "all", "num_samples": 50,
        "per_image": 10, "rows_per_channel": 0, "chunk": 4,
    }  # fmt: skip
    return Thinet(**values | changes)


class Small(nn.Module):
    """Two convolutions with everything that may lie in between, and a classifier."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(2)
        self.second = nn.Conv2d(8, 6, 3, stride=2, padding=1)
        self.fc = nn.Linear(6 * 4, 5)

    def forward(self, x):
        x = self.pool(self.norm(self.first(x)).relu())
        return self.fc(self.second(x).relu().flatten(1))


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = Small().eval()
    made.norm.running_mean.normal_()
    made.norm.running_var.uniform_(0.5, 2)
    return made


def evidence(network, seed=0, count=10):
    images = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    cmap = trace(network, images[:1])
    return Evidence(network, cmap, tuple(cmap.groups), images, torch.zeros(count).long(), seed)


def output_of(network, name, images):
    heard = []
    module = network.get_submodule(name)
    handle = module.register_forward_hook(lambda *call: heard.append(call[2].double()))
    with torch.no_grad():
        network(images)
    handle.remove()
    return heard[0]


@pytest.mark.parametrize("name_and_reader", [("first", "second"), ("second", "fc")])
@pytest.mark.parametrize("search", ["remove", "keep"])
def test_a_score_is_what_the_next_layer_misses_in_the_real_network(
    network, name_and_reader, search
):
    name, reader = name_and_reader
    facts = evidence(network)
    scores = thinet(search=search).rank(facts)[name].scores
    order = scores.argsort().tolist()
    bias = network.get_submodule(reader).bias.detach().double()
    full = output_of(network, reader, facts.images)
    energy = (full - bias.view(1, -1, *[1] * (full.dim() - 2))).square().sum()
    highest = 0.0
    for gone in range(1, len(order)):
        masked = mask(network, facts.cmap, Plan({name: sorted(order[gone:])}))
        missed = (output_of(masked, reader, facts.images) - full).square().sum() / energy
        highest = max(highest, missed.item())
        assert scores[order[gone - 1]].item() == pytest.approx(highest, rel=1e-5)


@pytest.mark.parametrize("search", SEARCHES)
def test_scores_rank_like_the_order_of_removal_and_are_relative(network, search):
    facts = evidence(network)
    setup = thinet(search=search)
    for name, rank in setup.rank(facts).items():
        [gram] = setup.grams(facts, facts.groups)[name].values()
        assert rank.scores.argsort().tolist() == removal_order(gram, search=search)
        assert len(set(rank.scores.tolist())) == len(gram)
        assert rank.scores.dtype == torch.float64
        assert rank.kept is None
        assert rank.scores.max() == pytest.approx(1) or search in ("remove", "keep")


@pytest.mark.parametrize("collect", ["all", "sampled"])
def test_a_channel_that_nobody_reads_goes_first_and_is_not_missed(network, collect):
    network.second.weight.data[:, 5] = 0
    facts = evidence(network)
    scores = thinet(collect=collect).rank(facts)["first"].scores
    assert scores.argmin() == 5
    assert scores.min() == 0
    smaller = slim(network, facts.cmap, Plan({"first": [0, 1, 2, 3, 4, 6, 7]}))
    with torch.no_grad():
        torch.testing.assert_close(smaller(facts.images), network(facts.images))


@pytest.mark.parametrize("collect", ["all", "sampled"])
def test_the_bias_of_the_next_layer_moves_no_score(network, collect):
    setup = thinet(collect=collect)
    before = setup.rank(evidence(network))["first"].scores
    network.second.bias.data += 50
    assert torch.equal(setup.rank(evidence(network))["first"].scores, before)


def test_samples_are_drawn_anew_with_another_seed_only(network):
    setup = thinet(collect="sampled")
    first, again = (setup.rank(evidence(network))["first"].scores for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, setup.rank(evidence(network, seed=1))["first"].scores)


class Forked(nn.Module):
    """A channel pair that two layers read, one of them a hundred times as loud."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 1, bias=False)
        self.loud = nn.Conv2d(2, 1, 1, bias=False)
        self.soft = nn.Conv2d(2, 1, 1, bias=False)
        self.stem.weight.data = torch.tensor([1.0, 1.0]).view(2, 1, 1, 1)
        self.loud.weight.data = torch.tensor([100.0, 120.0]).view(1, 2, 1, 1)
        self.soft.weight.data = torch.tensor([9.0, 1.0]).view(1, 2, 1, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.loud(x).mean((2, 3)), self.soft(x).mean((2, 3))


def test_several_consumers_count_by_their_samples_or_alike():
    network = Forked().eval()
    images = torch.ones(1, 1, 1, 1)
    cmap = trace(network, images)
    facts = Evidence(network, cmap, tuple(cmap.groups), images, torch.zeros(1).long(), 0)
    # stacked: 100^2 + 9^2 < 120^2 + 1, so channel 0 goes first
    loud = thinet().rank(facts)["stem"].scores
    assert loud.tolist() == pytest.approx([10081 / 48500, 1])
    # alike: (100 / 220)^2 + 0.9^2 > (120 / 220)^2 + 0.1^2, so channel 1 does
    alike = thinet(balance=True).rank(facts)["stem"].scores
    assert alike.tolist() == pytest.approx([1, ((120 / 220) ** 2 + 0.1**2) / 2])


def test_a_group_that_no_layer_reads_is_refused(network):
    with pytest.raises(PruningError, match=r"reads the channels of first.*budget\.exclude"):
        thinet()._added(evidence(network).groups[0], [])


def test_ranges():
    with pytest.raises(ConfigError, match="search must be one of"):
        thinet(search="greedy")
    with pytest.raises(ConfigError, match="collect must be one of sampled, all"):
        thinet(collect="some")
