"""LeNet-5: sizes of images."""

import pytest
import torch

from prunebench.errors import ConfigError
from prunebench.models.lenet import Lenet5


@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 28, 28), (3, 33, 20)])
def test_takes_images_of_any_size_from_16_up(shape):
    assert Lenet5().build(shape, 10)(torch.rand(2, *shape)).shape == (2, 10)


def test_smaller_images_are_refused():
    with pytest.raises(ConfigError, match="at least 16 x 16, got 15 x 28"):
        Lenet5().build((1, 15, 28), 10)
