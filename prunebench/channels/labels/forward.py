"""Runs a forward under a labeller without leaving a trace on the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from prunebench.channels.labels.labeller import Labeller
from prunebench.channels.labels.tensors import along, labels_of, put, tensors_in
from prunebench.channels.mode import in_mode
from prunebench.errors import PruningError


def labelled_input(labeller: Labeller, example: Tensor) -> Tensor:
    """Returns one image of `example` without data, its channels labelled and frozen."""
    x = torch.empty((1, *example.shape[1:]), dtype=example.dtype, device="meta")
    ids = labeller.ids.new(x.size(1))
    labeller.ids.freeze(ids, "tied to the input of the network")
    return put(x, along(ids * 2, 1, x.dim()))


def freeze_outputs(labeller: Labeller, result: Any) -> None:
    """Freezes the channels of every tensor in `result`, what the network returned."""
    for out in tensors_in(result):
        labeller.ids.freeze(labels_of(out) >> 1, "the output of the network")


@contextmanager
def following(labeller: Labeller, model: nn.Module, *, training: bool = False) -> Iterator[None]:
    """Follows forwards of `model`, by default in eval mode; puts every training flag back."""
    try:
        with in_mode(model, training=training), torch.no_grad(), labeller.watching(), labeller:
            yield
    except (NotImplementedError, TypeError) as error:
        where = labeller.stuck or "the forward of the network"
        raise PruningError(f"{where} cannot be followed without data: {error}") from error
