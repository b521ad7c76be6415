"""Wraps a network so that it normalises images itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunebench.checkpoints.slimmed import Normalisation


class Normalised(nn.Module):
    """Normalises images with values from 0 to 1, then applies a network."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, normalisation: Normalisation) -> None:
        """Wraps `network`."""
        super().__init__()
        for name, values in (("mean", normalisation.mean), ("std", normalisation.std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None])
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Returns the network's outputs for `images` [n, C, H, W]."""
        out: Tensor = self.network((images - self.mean) / self.std)
        return out


def expected(normalisation: Normalisation | None, *, inside: bool) -> str:
    """Returns a sentence on what an exported network expects of images.

    `inside` says whether it normalises them itself; a `normalisation` of None is unknown.
    """
    if normalisation is None:
        return "as the network that was pruned takes it"
    if inside:
        return "values from 0 to 1 (pixel / 255); the network normalises them itself"
    return (
        f"normalised: (pixel / 255 - mean) / std with mean {list(normalisation.mean)} and std "
        f"{list(normalisation.std)}, per channel"
    )
