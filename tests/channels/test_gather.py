from __future__ import annotations

import torch

from prunebench.channels import GatherChannels


def test_a_gather_gives_zeros_for_missing_channels() -> None:
    x = torch.tensor([[float("nan"), 2.0, 3.0]])
    assert GatherChannels([-1, 2, 1])(x).tolist() == [[0.0, 3.0, 2.0]]
