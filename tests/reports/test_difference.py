"""Intervals agree with textbooks, and have the coverage that they state."""

import math
from types import ModuleType

import numpy as np
import pytest

from prunebench.reports.difference import by_image, by_seed


@pytest.fixture(scope="module")
def stats() -> ModuleType:
    """What is right, which takes half a second to import."""
    from scipy import stats

    return stats


def test_over_seeds_it_is_the_paired_t_test(stats: ModuleType) -> None:
    ours, theirs = [91.0, 90.5, 91.4], [90.6, 90.4, 90.5]
    found = by_seed(ours, theirs)
    low, high = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert (found.points - found.half, found.points + found.half) == pytest.approx((low, high))
    assert found.verdict == "not distinguishable"
    assert by_seed(theirs, [one - 5 for one in theirs]).verdict == "better"


def test_one_seed_without_answers_says_nothing() -> None:
    found = by_seed([91.0], [80.0])
    assert math.isinf(found.half)
    assert found.verdict == "not distinguishable"
    assert found.seeds_to_see(0.2) is None


def test_one_seed_is_about_the_images_alone(stats: ModuleType) -> None:
    draw = np.random.default_rng(0)
    ours, theirs = draw.random((2, 1, 400)) < [[[0.9]], [[0.8]]]
    found = by_image(ours, theirs)
    gaps = 100 * (ours[0].astype(float) - theirs[0].astype(float))
    low, high = stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
    assert (found.points - found.half, found.points + found.half) == pytest.approx((low, high))


def test_mean_squares_are_those_of_two_ways(stats: ModuleType) -> None:
    # gaps by seed (rows) and image: [[1, 0, 0, 1], [1, 0, -1, 0]], by hand in points of 100
    ours = np.array([[1, 1, 0, 1], [1, 0, 0, 1]], dtype=bool)
    theirs = np.array([[0, 1, 0, 0], [0, 0, 1, 1]], dtype=bool)
    found = by_image(ours, theirs)
    assert found.points == 25.0  # (2 + 0) / 8
    # seeds: 4 * 2 * .25**2 / 1 = .5; images: 2 * (.75**2 + .25**2 + .75**2 + .25**2) / 3 = .8333
    # rest: what is left of 4 - 8 * .0625 - .5 - 2.5, over 3 = .1667 (sum of squares of the gaps: 4)
    squares = 0.5 + 0.8333333 - 0.1666667
    free = squares**2 / (0.5**2 / 1 + 0.8333333**2 / 3 + 0.1666667**2 / 3)
    half = stats.t.ppf(0.975, free) * math.sqrt(squares / 8) * 100
    assert found.half == pytest.approx(half, rel=1e-5)
    assert found.image_variance == pytest.approx(1e4 * (0.8333333 - 0.1666667) / 8, rel=1e-5)


def test_two_networks_that_answer_alike_do_not_differ() -> None:
    right = np.ones((3, 50), dtype=bool)
    found = by_image(right, right)
    assert (found.points, found.half, found.verdict) == (0.0, 0.0, "not distinguishable")


def test_intervals_cover_the_truth() -> None:
    """Two methods of the same accuracy, with noise from seeds and from images."""
    draw = np.random.default_rng(1)
    seeds, images, told = 5, 400, []
    for _ in range(300):
        hard = draw.normal(size=images)
        sides = []
        for _ in range(2):
            own = draw.normal(size=images)  # what a method finds hard, whatever its seed
            luck = 0.2 * draw.normal(size=(seeds, 1)) + draw.normal(size=(seeds, images))
            sides.append(hard + 0.7 * own + luck < 1)
        told.append(by_image(*sides).verdict)
    assert 0.92 <= told.count("not distinguishable") / len(told) <= 0.995


def test_more_seeds_see_more_until_the_test_set_is_too_small(stats: ModuleType) -> None:
    found = by_seed([91.0, 90.5, 91.4], [90.6, 90.4, 90.5])
    few, many = found.seeds_to_see(1.0), found.seeds_to_see(0.2)
    assert few < many
    # the formula at the number named, and at one less
    deviation = np.std([0.4, 0.1, 0.9], ddof=1)
    assert stats.t.ppf(0.975, many - 1) * deviation / math.sqrt(many) <= 0.2
    assert stats.t.ppf(0.975, many - 2) * deviation / math.sqrt(many - 1) > 0.2
    draw = np.random.default_rng(2)
    own = draw.random((2, 1, 60)) < 0.7
    small = by_image(*(own & (draw.random((2, 4, 60)) < 0.95)))
    assert small.seeds_to_see(0.2) is None


def test_seeds_that_are_enough_already_are_not_asked_for_more() -> None:
    """Where images alone make the difference uncertain, degrees of freedom are those of images."""
    draw = np.random.default_rng(3)
    theirs = draw.random(10_000) < 0.9
    ours = theirs ^ (draw.random(10_000) < 0.006)  # every seed answers the same
    found = by_image(np.stack([ours] * 3), np.stack([theirs] * 3))
    assert 0.1 < found.half < 0.2
    assert found.seeds_to_see(0.2) == 2
    noisy = [ours ^ (draw.random(10_000) < share) for share in (0.001, 0.002, 0.004)]
    found = by_image(np.stack(noisy), np.stack([theirs] * 3))
    assert found._half_with(3) == pytest.approx(found.half)
