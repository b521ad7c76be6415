"""LFW's test worked by hand: folds, thresholds, flips, centring."""

import math

import pytest
import torch
from torch import nn

from prunebench.measure import lfw_accuracy
from prunebench.measure.verification import verification
from tests.faces import write_lfw


def unit(degrees):
    """A vector of length 1 at an angle."""
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


def asked(angles, same, folds, protocol):
    """What comes of pairs at `angles` to each other; a mirror image has the same embedding."""
    one = torch.tensor([unit(0) for _ in angles], dtype=torch.float64)
    other = torch.tensor([unit(angle) for angle in angles], dtype=torch.float64)
    same = torch.tensor(same)
    return verification((one, one), (other, other), same, folds=folds, protocol=protocol)


def test_each_fold_is_tested_with_the_threshold_of_the_others():
    # squared distances 2 - 2 cos: 10 -> 0.030, 20 -> 0.121, 60 -> 1, 90 -> 2, 40 -> 0.468
    found = asked([10, 90, 20, 60, 40, 20], [True, False] * 3, 3, "insightface")
    # fold 0: the others have 20, 40 alike and 60, 20 strange: best 3 of 4, first with 20 alike
    #   (tied with 20 strange) is beyond 0.468: 0.47; then 10 is alike, 90 is strange
    # fold 1: 10, 40 against 90, 20: first with 3 right is 0.04 (10 alike, both strange right)
    # fold 2: 10, 20 against 90, 60: all right from 0.13 on
    assert found.thresholds == pytest.approx([0.47, 0.04, 0.13])
    # fold 1: 20 is not below 0.04, 60 is strange; fold 2: 40 is not below 0.13, 20 is
    assert (found.correct, found.pairs) == ([2, 1, 0], [2, 2, 2])
    assert found.accuracies == [100, 50, 0]
    assert (found.accuracy, found.std) == (50, pytest.approx(40.8248, abs=1e-4))


def test_the_acceptance_rate_is_read_where_hardly_a_stranger_of_the_other_folds_is_accepted():
    found = asked([10, 90, 20, 60, 40, 20], [True, False] * 3, 3, "insightface")
    # nearest stranger of the other folds: 20, 20 and 60 degrees; at 20 itself none is accepted
    assert (found.far, found.accepted) == (1e-3, [1.0, 0.0, 1.0])


def test_the_roc_counts_all_folds():
    found = asked([10, 90, 20, 60, 40, 50], [True, False] * 3, 3, "insightface")
    # strangers at 50, 60, 90; alike at 10, 20, 40
    assert found.roc == [
        [0.0, 1.0],
        [pytest.approx(1 / 3), 1.0],
        [pytest.approx(2 / 3), 1.0],
        [1, 1],
    ]
    found = asked([10, 90, 55, 60, 95, 50], [True, False] * 3, 3, "insightface")
    assert [right for _, right in found.roc] == pytest.approx([1 / 3, 2 / 3, 2 / 3, 1])


def test_sphereface_centres_on_the_other_folds_and_takes_the_mean_of_the_best_thresholds():
    # fold 0 lies around (5, 0), fold 1 around (0, 5); the centre of the other is subtracted
    one = torch.tensor([[6.0, 0], [4, 0], [1, 5], [-1, 5]], dtype=torch.float64)
    other = torch.tensor([[6.0, 1], [5, 1], [1, 5.5], [1, 4]], dtype=torch.float64)
    none = torch.zeros(4, 0, dtype=torch.float64)  # mirror images put nothing beside
    same = torch.tensor([True, False, True, False])
    found = verification((one, none), (other, none), same, folds=2, protocol="sphereface")
    for fold, (own, rest) in enumerate([((0, 1), (2, 3)), ((2, 3), (0, 1))]):
        mean = torch.cat([one[list(rest)], other[list(rest)]]).mean(0)
        cosines = torch.cosine_similarity(one - mean, other - mean)
        alike, strange = (float(cosines[i]) for i in rest)
        assert strange < alike  # every threshold between them is best
        assert found.thresholds[fold] == pytest.approx((alike + strange) / 2, abs=1e-4)
        right = (cosines[own[0]] > found.thresholds[fold], cosines[own[1]] < found.thresholds[fold])
        assert found.correct[fold] == sum(map(bool, right))


def test_insightface_adds_mirror_images_and_sphereface_puts_them_beside():
    # the sum takes apart what the mirror images alone have; put beside, they count as much
    one = torch.tensor([[1.0, 0]] * 4, dtype=torch.float64)
    mirrored = torch.tensor([[-0.9, 0.0]] * 4, dtype=torch.float64)
    other = torch.tensor([[1.0, 0], [0, 1.0]] * 2, dtype=torch.float64)
    same = torch.tensor([True, False] * 2)
    pairs = (one, mirrored), (other, mirrored)
    summed = verification(*pairs, same, folds=2, protocol="insightface")
    # summed up, a stranger's (-0.9, 1) points away from (0.1, 0): the squared distance is
    far = 2 - 2 * -0.9 / math.hypot(0.9, 1.0)
    assert far > 3
    assert summed.thresholds == [0.01, 0.01]
    # beside: (1, 0, -0.9, 0) and (0, 1, -0.9, 0), whose mean (0.75, 0.25, -0.9, 0) is taken off
    beside = verification(*pairs, same, folds=2, protocol="sphereface")
    near = torch.cosine_similarity(torch.tensor([0.25, -0.25]), torch.tensor([-0.75, 0.75]), dim=0)
    assert beside.thresholds == pytest.approx([(1 + float(near)) / 2] * 2, abs=1e-3)


class Means(nn.Module):
    """Embeds an image by its colours, left and right half apart."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images):
        left, right = images.chunk(2, dim=3)
        return torch.cat([left.mean((2, 3)), right.mean((2, 3))], 1) * self.weight


@pytest.mark.parametrize("protocol", ["insightface", "sphereface"])
def test_a_network_is_measured_on_a_folder(protocol, tmp_path):
    network = Means().train()
    found = lfw_accuracy(
        network, write_lfw(tmp_path / "lfw", 5, 2), protocol=protocol, image_size=(32, 32)
    )
    assert network.training
    assert found.pairs == [4] * 5
    assert len(found.correct) == len(found.thresholds) == len(found.accepted) == 5
    assert found.roc[-1] == [1.0, 1.0]
