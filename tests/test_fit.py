"""Numbers of a configuration, checked against the data."""

import numpy as np
import pytest

from prunebench.config import load
from prunebench.config.fit import check_fit
from prunebench.errors import DataError
from tests.test_conf import composed

DIGITS = ("dataset=digits", "dataset.size=8", "model=mlp_512_512", "recipe=quick")


def told(*typed):
    run = load(composed(*DIGITS, *typed), {})
    return list(check_fit(run, run.dataset.load()))


def test_what_fits_says_nothing():
    assert told() == []
    assert told("dataset.train_size=128") == []
    # neither trains
    assert told("recipe.pruning.batch_size=2000") == []
    assert told("recipe.baseline.batch_size=2000", "baseline.checkpoint=x.pt") == []


@pytest.mark.parametrize("phase", ["baseline", "finetune"])
def test_a_batch_larger_than_the_training_set_is_said(phase):
    [line] = told(f"recipe.{phase}.batch_size=1198")
    assert line.startswith(f"recipe.{phase}.batch_size=1198: more than the 1,197 training images")
    assert told(f"recipe.{phase}.batch_size=1197") == []


def test_what_is_cut_or_left_out_is_said():
    [line] = told("criterion.num_samples=100000000")
    assert line == "criterion: needs 100,000,000 training images; there are 1,197, and all are used"
    [line] = told("recipe.baseline.epochs=0", "recipe.baseline.warmup_epochs=0")
    assert "recipe.baseline.epochs=0: an untrained network is pruned" in line


@pytest.mark.parametrize(
    ("train", "test", "answer"),
    [
        ([0, 0, 0], [0], "all labels are 0"),
        ([0, 1, 10**6], [0], "labels go up to 1000000, but no training image has label 2"),
        ([0, 1, 1], [2], "labels go up to 2, but no training image has label 2"),
    ],
)
def test_labels_that_no_training_image_has_are_refused(tmp_path, train, test, answer):
    def images(labels):
        return np.zeros((len(labels), 8, 8), dtype=np.uint8)

    file = tmp_path / "a.npz"
    np.savez(
        file,
        train_images=images(train),
        train_labels=train,
        test_images=images(test),
        test_labels=test,
    )
    run = load(composed("dataset=npz", f"dataset.path='{file}'", "dataset.val_size=0"), {})
    with pytest.raises(DataError, match=answer):
        run.dataset.load()
