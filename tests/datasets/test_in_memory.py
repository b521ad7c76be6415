"""Data sets in memory: balanced orders and splits."""

import pytest
import torch

from prunebench.datasets import Arrays
from prunebench.datasets.in_memory import balanced_order
from prunebench.datasets.npz import Npz
from prunebench.errors import ConfigError, DataError

LABELS = torch.tensor([0] * 10 + [1] * 20 + [2] * 30)


def spec(**changes):
    values = {
        "path": "", "mean": [0.5], "std": [0.25], "crop_padding": 0, "flip": False,
        "val_size": 6, "train_size": None, "split_seed": 0,
    }  # fmt: skip
    return Npz(**values | changes)


def numbered(labels, channels=1):
    """Images whose pixels tell their place."""
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)
    return Arrays(images.expand(-1, channels, 2, 2), labels)


def test_every_beginning_of_the_order_is_balanced():
    order = balanced_order(LABELS, seed=4)
    assert sorted(order.tolist()) == list(range(60))
    for size in (6, 12, 18, 30):
        assert LABELS[order[:size]].bincount().tolist() == [size // 6, size // 3, size // 2]


def test_as_many_of_each_class_come_first_as_long_as_there_are():
    order = balanced_order(LABELS, seed=4, as_many=True)
    assert sorted(order.tolist()) == list(range(60))
    for size, of_each in ((3, [1, 1, 1]), (30, [10, 10, 10]), (50, [10, 20, 20])):
        assert LABELS[order[:size]].bincount().tolist() == of_each
    equal = torch.arange(40) % 4
    assert torch.equal(balanced_order(equal, 7), balanced_order(equal, 7, as_many=True))


def test_the_order_is_that_of_its_seed():
    # the stream of numpy's RandomState is frozen, so these hold on every machine
    assert balanced_order(torch.zeros(6, dtype=torch.int64), seed=0).tolist() == [5, 2, 1, 3, 0, 4]
    assert not torch.equal(balanced_order(LABELS, 0), balanced_order(LABELS, 1))


def test_a_class_without_images_does_no_harm():
    labels = torch.tensor([3, 0, 3, 0])
    assert sorted(labels[balanced_order(labels, 1)[:2]].tolist()) == [0, 3]


def test_pick_keeps_the_stored_order():
    picked = numbered(LABELS).at(torch.tensor([50, 3, 20]))
    assert picked.images[:, 0, 0, 0].tolist() == [3, 20, 50]
    assert picked.labels.tolist() == [0, 1, 2]


def test_train_and_val_part_the_training_set_and_test_is_whole():
    train, test = numbered(LABELS), numbered(torch.tensor([0, 1]))
    data = spec().data("x", train, test, classes=3)
    places = [s.images[:, 0, 0, 0].tolist() for s in (data.train, data.val)]
    assert sorted(places[0] + places[1]) == list(range(60))
    assert data.val.labels.bincount().tolist() == [1, 2, 3]
    assert data.test is test
    assert data.shape == (1, 2, 2)


def test_train_size_takes_a_balanced_part_and_leaves_val_alone():
    train, test = numbered(LABELS), numbered(torch.tensor([0, 1]))
    whole = spec().data("x", train, test, classes=3)
    part = spec(train_size=12).data("x", train, test, classes=3)
    assert torch.equal(part.val.images, whole.val.images)
    assert part.train.labels.bincount().tolist() == [2, 4, 6]
    kept = set(part.train.images[:, 0, 0, 0].tolist())
    assert kept < set(whole.train.images[:, 0, 0, 0].tolist())


def test_one_value_of_mean_and_std_serves_all_channels():
    train = numbered(LABELS, channels=3)
    assert spec().data("x", train, train, classes=3).mean == (0.5, 0.5, 0.5)
    three = spec(mean=[0.1, 0.2, 0.3], std=[1.0, 1.0, 1.0])
    assert three.data("x", train, train, classes=3).mean == (0.1, 0.2, 0.3)
    with pytest.raises(DataError, match="have 2 values, but the images have 3 channels"):
        spec(mean=[0.1, 0.2], std=[1.0, 1.0]).data("x", train, train, classes=3)


@pytest.mark.parametrize("changes", [{"val_size": 60}, {"val_size": 50, "train_size": 11}])
def test_sizes_beyond_the_training_set_are_refused(changes):
    train = numbered(LABELS)
    with pytest.raises(DataError, match="more than the 60 training images"):
        spec(**changes).data("x", train, train, classes=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": []}, "mean must have"),
        ({"std": [0.2, 0.2]}, "mean and std must be equally long, got 1 and 2"),
        ({"std": [0.0]}, "std must be positive"),
        ({"crop_padding": -1}, "crop_padding must be at least 0"),
        ({"val_size": -1}, "val_size must not be negative"),
        ({"train_size": 0}, "train_size must be at least 1 or null"),
        ({"split_seed": -1}, "split_seed must lie in"),
    ],
)
def test_values_out_of_range_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        spec(**changes)
