"""Sets the training or eval mode of networks, for a while or for good."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from prunebench.channels.members import named_modules


@contextmanager
def in_mode(network: nn.Module, *, training: bool = False) -> Iterator[None]:
    """Holds every module of `network` in one mode within the block; then restores each.

    Only the flags are set, so that no module's own ``train`` or ``eval`` runs. A batch norm that
    was frozen in eval mode inside a training network is so again afterwards.
    """
    flags = [(module, module.training) for _, module in named_modules(network)]
    try:
        for module, flag in flags:
            if flag != training:
                module.training = training
        yield
    finally:
        for module, flag in flags:
            if module.training != flag:
                module.training = flag


def match_modes(network: nn.Module, other: nn.Module) -> None:
    """Puts every module of `network` into the mode of its namesake in `other`.

    Modules that `other` lacks take the mode of `other` itself.
    """
    flags = {name: module.training for name, module in named_modules(other)}
    for name, module in named_modules(network):
        module.training = flags.get(name, other.training)
