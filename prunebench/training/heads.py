"""Heads: what turns embeddings into logits while a network for faces is trained.

They lie outside the network: they are neither pruned nor measured, and the slim file lacks them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunebench.recipes import Phase

#: length below which an embedding is taken for this long, so that its direction has a gradient
_SHORTEST = 1e-6


class Head(nn.Module):
    """A row of weights for each identity: inner products with it, or cosines for all margins."""

    def __init__(self, weight: Tensor, *, cosine: bool) -> None:
        """Starts from `weight` [classes, d]."""
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
        self.cosine = cosine

    def forward(self, embeddings: Tensor) -> Tensor:
        """Returns [n, classes] of embeddings [n, d], in float32 whatever these are."""
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = embeddings.float()
            if not self.cosine:
                return functional.linear(embeddings, self.weight)
            directions = functional.normalize(self.weight, eps=_SHORTEST)
            return functional.linear(functional.normalize(embeddings, eps=_SHORTEST), directions)


class Headed(nn.Module):
    """A network and the head that it is trained with."""

    def __init__(self, network: nn.Module, head: Head) -> None:
        """Puts `head` behind `network`."""
        super().__init__()
        self.network, self.head = network, head

    def forward(self, images: Tensor) -> Tensor:
        """Returns what the head makes of images [n, C, H, W]: the highest is the answer."""
        found: Tensor = self.head(self.network(images))
        return found


def headed(network: nn.Module, weight: Tensor, phase: Phase) -> Headed:
    """Returns `network` with the head that `phase` trains it with, beginning at `weight`."""
    device = next(network.parameters()).device
    return Headed(network, Head(weight.to(device), cosine=phase.head != "softmax"))


def bare(network: nn.Module) -> nn.Module:
    """Returns a network without the head it is trained with."""
    return network.network if isinstance(network, Headed) else network


def head_weight(network: nn.Module) -> Tensor | None:
    """Returns the weights of the head of a network, on the CPU; None where it has none."""
    return network.head.weight.detach().cpu().clone() if isinstance(network, Headed) else None


def without_head(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a state dict of `network` as one of the same network without its head."""
    if not isinstance(network, Headed):
        return dict(state)
    return {name: state[f"network.{name}"] for name in network.network.state_dict()}


def initial_weight(classes: int, width: int, seed: int) -> Tensor:
    """Returns weights [classes, width], drawn from `seed` alone."""
    weight = torch.empty(classes, width)
    return nn.init.xavier_uniform_(weight, generator=torch.Generator().manual_seed(seed))
