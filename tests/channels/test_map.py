"""What a channel map says of plans."""

from __future__ import annotations

import pytest
from torch import nn, randn

from prunebench.channels import Plan, trace
from prunebench.errors import PruningError


def test_check_names_the_group() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
    cmap = trace(net, randn(1, 3, 2, 2))
    cmap.check(Plan({"0": [0, 3]}))
    with pytest.raises(PruningError, match=r"no group '9' in this network; groups: 0"):
        cmap.check(Plan({"9": [0]}))
    with pytest.raises(PruningError, match=r"4 channels \(0 to 3\), but channel 4"):
        cmap.check(Plan({"0": [4]}))
