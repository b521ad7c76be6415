"""Training and eval mode, borrowed for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from prunebench.channels.members import named_modules


@contextmanager
def in_mode(network: nn.Module, *, training: bool = False) -> Iterator[None]:
    """Holds every module of `network` in one mode; afterwards each has its own back.

    Only the flags are set: a frozen batch norm, which was in eval mode inside a network that
    trains, is so again, and no module's own ``train`` or ``eval`` runs.
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

    What `other` does not have goes into the mode of `other` as a whole.
    """
    flags = {name: module.training for name, module in named_modules(other)}
    for name, module in named_modules(network):
        module.training = flags.get(name, other.training)
