"""criterion.holdout: training images that the training does not see."""

from dataclasses import replace

import pytest
import torch

from prunebench.datasets import Arrays, Data
from prunebench.datasets.holdout import hold_out
from prunebench.datasets.stream import Loading, Stream
from prunebench.errors import DataError


def arrays(n: int) -> Arrays:
    numbers = torch.arange(n)
    return Arrays(numbers.to(torch.uint8).view(n, 1, 1, 1), numbers % 2)


DATA = Data(
    name="numbers", train=arrays(40), val=arrays(3), test=arrays(2), classes=2, mean=(0,), std=(1,)
)


def streamed() -> Data:
    train = Stream(
        source=None, numbers=torch.arange(100, 140), labels=torch.arange(40) % 2, shape=(1, 1, 1),
        training=None, plain=None, loading=Loading(workers=0, prefetch=2, allow_damaged=0.0),
    )  # fmt: skip
    return replace(DATA, train=train)


@pytest.mark.parametrize("share", [0.1, 0.25])
def test_each_image_is_on_one_side_and_classes_are_balanced(share):
    left, held = hold_out(DATA, share, seed=3)
    sides = [part.images.flatten().tolist() for part in (left.train, held)]
    assert sorted(sides[0] + sides[1]) == list(range(40))
    assert len(held) == 40 * share
    assert held.labels.sum() * 2 == len(held)
    assert left.val is DATA.val
    assert left.test is DATA.test
    again, other = hold_out(DATA, share, seed=3)[1], hold_out(DATA, share, seed=4)[1]
    assert torch.equal(again.images, held.images)
    assert not torch.equal(other.images, held.images)


def test_streams_are_divided_alike():
    left, held = hold_out(streamed(), 0.25, seed=3)
    kept = hold_out(DATA, 0.25, seed=3)[1]
    assert (held.numbers - 100).tolist() == kept.images.flatten().tolist()
    assert torch.equal(held.labels, kept.labels)
    assert sorted([*left.train.numbers.tolist(), *held.numbers.tolist()]) == list(range(100, 140))


def test_nothing_is_held_at_0_and_too_little_is_refused():
    assert hold_out(DATA, 0.0, seed=0) == (DATA, None)
    for share in (0.001, 0.999):
        with pytest.raises(DataError, match=f"criterion.holdout={share} of 40 training images"):
            hold_out(DATA, share, seed=0)
