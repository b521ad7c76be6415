"""z scores, tails and moments, compared with worked numbers and with sampling."""

import math
from statistics import NormalDist

import pytest
import torch

from prunebench.analysis.clipped_normal import clipped_moments, deviation, relu_moments
from prunebench.criteria.bn_probability import z_score


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_z_is_minus_mean_over_corrected_deviation():
    z = z_score(tensor(2.0, -0.5), tensor(-3.0, 1.0), tensor(4.0, 1e-5), 1e-5)
    plain = [3 / (2 * math.sqrt(4 / 4.00001)), -1 / (0.5 * math.sqrt(0.5))]
    assert z.tolist() == pytest.approx(plain, rel=1e-12)
    assert z.dtype == torch.float64


@pytest.mark.parametrize(("tau", "least"), [
    (0.90, 1.2816), (0.95, 1.6449), (0.975, 1.9600), (0.97725, 2.0), (0.99, 2.3263),
    (0.99865, 3.0),
])  # fmt: skip
def test_thresholds_on_z_and_on_the_probability_agree(tau, least):
    assert NormalDist().inv_cdf(tau) == pytest.approx(least, abs=5e-4)
    z = z_score(torch.ones(400), -torch.linspace(-4, 4, 400), torch.ones(400), 0.0)
    dead = tensor(*(NormalDist().cdf(value) for value in z.tolist())) >= tau
    assert torch.equal(z >= NormalDist().inv_cdf(tau), dead)


def test_a_norm_without_spread_is_decided_by_the_sign_of_its_shift():
    z = z_score(torch.zeros(3), tensor(-1.0, 0.0, 1.0), torch.ones(3), 1e-5)
    assert z.tolist() == [math.inf, math.inf, -math.inf]
    z = z_score(torch.ones(2), tensor(-1.0, 1.0), torch.zeros(2), 1e-5)
    assert z.tolist() == [math.inf, -math.inf]
    # behind a dead channel the variance is far below epsilon: again the sign decides
    z = z_score(torch.ones(2), tensor(-0.1, 0.1), tensor(1e-12, 1e-12), 1e-5)
    assert z[0] > 300
    assert z[1] < -300


def test_z_still_ranks_where_the_probability_has_saturated():
    z = z_score(torch.ones(2), tensor(-9.0, -12.0), torch.ones(2), 0.0)
    chances = torch.special.ndtr(z)
    assert chances[0] == chances[1] == 1.0
    assert z[0] < z[1]


def test_deviation_is_corrected_for_epsilon():
    assert deviation(tensor(-2.0), tensor(3.0), 1.0).item() == pytest.approx(2 * math.sqrt(0.75))


def test_worked_means_of_a_relu():
    first, _ = relu_moments(tensor(-1.0, -2.0, -3.0), torch.ones(3))
    assert first.tolist() == pytest.approx([0.0833, 0.0085, 0.00038], abs=5e-5)


def test_worked_errors_of_zero_and_of_the_mean_as_constants():
    first, second = relu_moments(tensor(0.0, -1.0), torch.ones(2))
    assert second.tolist() == pytest.approx([0.501, 0.0750], abs=2e-3)  # constant 0
    assert (second - first.square()).tolist() == pytest.approx([0.341, 0.0682], abs=2e-4)


def test_cantellis_bound_holds():
    for z in (1.0, 2.0, 3.0):
        assert NormalDist().cdf(-z) <= 1 / (1 + z**2)


@pytest.mark.parametrize("ceiling", [math.inf, 6.0, 1.0])
def test_moments_agree_with_sampling(ceiling):
    mean, spread = tensor(-1.5, 0.0, 0.7, 5.0, 8.0), tensor(1.0, 2.0, 0.3, 2.0, 1.0)
    drawn = torch.randn(400_000, 1, generator=torch.Generator().manual_seed(0), dtype=mean.dtype)
    clipped = (mean + spread * drawn).clamp(0, ceiling)
    first, second = clipped_moments(mean, spread, ceiling)
    torch.testing.assert_close(first, clipped.mean(0), atol=0.02, rtol=0)
    torch.testing.assert_close(second, clipped.square().mean(0), atol=0.15, rtol=0.01)


def test_moments_without_spread_are_those_of_the_mean():
    first, second = clipped_moments(tensor(-1.0, 2.0, 9.0), torch.zeros(3), 6.0)
    assert first.tolist() == [0.0, 2.0, 6.0]
    assert second.tolist() == [0.0, 4.0, 36.0]
