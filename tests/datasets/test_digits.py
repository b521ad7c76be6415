"""The digits of scikit-learn: splits, enlarged images, the shipped file."""

import pytest
import torch

from prunebench.datasets.digits import Digits, shipped
from prunebench.errors import ConfigError, DataError


def digits(**changes):
    values = {
        "size": 8, "mean": [0.3], "std": [0.3], "crop_padding": 0, "flip": False,
        "test_size": 300, "val_size": 300, "train_size": None, "split_seed": 0,
    }  # fmt: skip
    return Digits(**values | changes)


def scikit_learns():
    """The digits where they come from."""
    from sklearn.datasets import load_digits  # slow to import

    return load_digits()


def test_the_splits_are_all_images_and_balanced():
    data = digits().load()
    assert [len(s) for s in (data.train, data.val, data.test)] == [1197, 300, 300]
    images = torch.cat([s.images for s in (data.train, data.val, data.test)]).flatten(1)
    raw = torch.from_numpy(scikit_learns().images).flatten(1)
    # 17 levels 0..16 on 0..255, none lost
    expected = {tuple(row) for row in (raw * 255 / 16).round().int().tolist()}
    assert {tuple(row) for row in images.int().tolist()} == expected
    for split in (data.val, data.test):
        assert split.labels.bincount().min() >= 29
        assert split.labels.bincount().max() <= 31


def test_enlarged_images_show_the_same_digit():
    small, large = digits().load(), digits(size=32).load()
    assert large.shape == (1, 32, 32)
    assert large.train.images.dtype == torch.uint8
    assert torch.equal(small.test.labels, large.test.labels)
    means = torch.nn.functional.avg_pool2d(large.test.images.float(), 4).flatten(1)
    drawn = small.test.images.float().flatten(1)
    assert torch.cosine_similarity(means, drawn).min() > 0.95
    assert (means.mean() - drawn.mean()).abs() < 0.1  # of 255


def test_sizes_that_leave_nothing_are_refused():
    with pytest.raises(DataError, match="test_size=1797 leaves nothing of the 1797"):
        digits(test_size=1797).load()
    with pytest.raises(ConfigError, match="size must be at least 8"):
        digits(size=4)


def test_the_file_is_read_as_scikit_learn_reads_it():
    raw = scikit_learns()
    rows = shipped()
    assert (rows[:, :-1] == raw.data).all()
    assert (rows[:, -1] == raw.target).all()
