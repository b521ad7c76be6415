"""Turns embeddings into logits while a network for faces is trained.

A head lies outside the network: it is neither pruned nor measured, and the slim file lacks it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunebench.recipes import Phase

#: least length by which a vector is divided, so that the gradient of its direction is finite
_SHORTEST = 1e-6


class Head(nn.Module):
    """Holds one row of weights per identity; returns inner products with them, or cosines."""

    def __init__(self, weight: Tensor, *, cosine: bool) -> None:
        """Starts from `weight` [classes, d]; heads with a margin need `cosine`."""
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
        self.cosine = cosine

    def forward(self, embeddings: Tensor) -> Tensor:
        """Returns logits [n, classes] in float32, for embeddings [n, d] of any dtype."""
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = embeddings.float()
            if not self.cosine:
                return functional.linear(embeddings, self.weight)
            directions = functional.normalize(self.weight, eps=_SHORTEST)
            return functional.linear(functional.normalize(embeddings, eps=_SHORTEST), directions)


class Headed(nn.Module):
    """Joins a network and the head that it is trained with."""

    def __init__(self, network: nn.Module, head: Head) -> None:
        """Puts `head` on top of `network`."""
        super().__init__()
        self.network, self.head = network, head

    def forward(self, images: Tensor) -> Tensor:
        """Returns the head's logits [n, classes] for images [n, C, H, W]."""
        found: Tensor = self.head(self.network(images))
        return found


def headed(network: nn.Module, weight: Tensor, phase: Phase) -> Headed:
    """Returns `network` with a head as `phase` needs it, starting at `weight`."""
    device = next(network.parameters()).device
    return Headed(network, Head(weight.to(device), cosine=phase.head != "softmax"))


def bare(network: nn.Module) -> nn.Module:
    """Returns `network` without its head; itself if it has none."""
    return network.network if isinstance(network, Headed) else network


def head_weight(network: nn.Module) -> Tensor | None:
    """Returns a copy of the head's weights [classes, d] on the CPU; None without a head."""
    return network.head.weight.detach().cpu().clone() if isinstance(network, Headed) else None


def without_head(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the entries of `state`, a state dict of `network`, that are not the head's.

    Their names are those that they have in the network without its head.
    """
    if not isinstance(network, Headed):
        return dict(state)
    return {name: state[f"network.{name}"] for name in network.network.state_dict()}


def initial_weight(classes: int, width: int, seed: int) -> Tensor:
    """Returns weights [classes, width], drawn from `seed` alone."""
    weight = torch.empty(classes, width)
    return nn.init.xavier_uniform_(weight, generator=torch.Generator().manual_seed(seed))
