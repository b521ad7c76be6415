"""Runs a forward under a labeller without leaving a trace on the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from prunebench.channels.labels.labeller import Labeller, put
from prunebench.errors import PruningError


def labelled_input(labeller: Labeller, example: Tensor) -> Tensor:
    """Returns one image of `example` without data, its channels labelled and frozen."""
    x = torch.empty((1, *example.shape[1:]), dtype=example.dtype, device="meta")
    ids = labeller.new(x.size(1))
    labeller.freeze(ids, "tied to the input of the network")
    return put(x, (ids * 2).view([-1 if d == 1 else 1 for d in range(x.dim())]))


@contextmanager
def following(labeller: Labeller, model: nn.Module, *, training: bool = False) -> Iterator[None]:
    """Follows forwards of `model`, by default in eval mode; puts every training flag back."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:
            module.training = training
        with torch.no_grad(), labeller.watching(), labeller:
            yield
    except (NotImplementedError, TypeError) as error:
        where = labeller.stuck or "the forward of the network"
        raise PruningError(f"{where} cannot be followed without data: {error}") from error
    finally:
        for module, flag in flags:
            module.training = flag
