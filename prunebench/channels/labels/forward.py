"""Runs a forward under a labeller without leaving a trace on the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from prunebench.channels.example import Example, changed, one_image
from prunebench.channels.followable import eagerly
from prunebench.channels.labels.labeller import Labeller
from prunebench.channels.labels.scripted import scripts_freeze
from prunebench.channels.labels.tensors import dead, labels_of, put
from prunebench.channels.members import named_modules
from prunebench.channels.mode import in_mode
from prunebench.channels.tensors import tensors_in
from prunebench.channels.untouched import untouched
from prunebench.errors import PruningError


def labelled_input(labeller: Labeller, example: Example) -> Any:
    """Returns one image of `example` without data, its channels labelled and frozen."""

    def label(t: Tensor) -> Tensor:
        if t.dim() < 2:
            return t
        ids = labeller.ids.new(t.size(1))
        labeller.ids.freeze(ids, "tied to the input of the network")
        return put(t, dead(ids, 1, t.dim()))

    return changed(one_image(example), label)


def freeze_outputs(labeller: Labeller, result: Any) -> None:
    """Freezes the channels of every tensor in `result`, the network's output."""
    labeller.outputs(result)
    for out in tensors_in(result):
        labeller.ids.freeze(labels_of(out) >> 1, "the output of the network")


def uncompile(model: nn.Module) -> None:
    """Makes modules compiled by ``module.compile()`` run as Python, until `untouched` ends."""
    for _, module in named_modules(model):
        vars(module).pop("_compiled_call_impl", None)


@contextmanager
def following(labeller: Labeller, model: nn.Module, *, training: bool = False) -> Iterator[None]:
    """Follows forwards of `model` within the block, by default in eval mode; then restores it.

    Compiled modules run as the Python they were made from.

    Raises:
        PruningError: torch cannot run an operation without data.
    """
    try:
        with (
            untouched(model),
            in_mode(model, training=training),
            torch.no_grad(),
            eagerly(),
            labeller.watching(),
            scripts_freeze(labeller),
            labeller,
        ):
            uncompile(model)
            yield
    except (NotImplementedError, TypeError) as error:
        where = labeller.stuck or "the forward of the network"
        raise PruningError(f"{where} cannot be followed without data: {error}") from error
