"""Restores slim files of users' own networks, for which the user gives the dense network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from prunebench.channels import Example, Plan, add_position_biases_as_in, in_mode, trace
from prunebench.channels.example import changed
from prunebench.channels.untouched import untouched
from prunebench.checkpoints import slimmed
from prunebench.checkpoints.foreign import fit_weights
from prunebench.errors import CheckpointError, PruningError

#: key of such a file that holds the network's class; files of runs have "model" instead
OWN = "own"


def plans_in(content: Mapping[str, Any]) -> tuple[Plan, ...]:
    """Returns the plans in a file, each in the numbering of what the one before left."""
    return tuple(Plan.from_json(text) for text in content["plans"])


def restored(
    path: Path, content: Mapping[str, Any], dense: nn.Module, example: Example | None = None
) -> nn.Module:
    """Returns `dense` slimmed by the plans of the file at `path`, with the weights in it.

    Args:
        path: path of the file, for messages.
        content: content of the file.
        dense: the network as before pruning, with any weights; left unchanged.
        example: an input; None for the one in the file.

    Raises:
        CheckpointError: the file is of another network, or neither gives an input.
    """
    given = _in_type_of(dense, content["example"]) if example is None else example
    if given is None:
        raise CheckpointError(f"{path} says nothing about the input; give load(..., example=...)")
    try:
        with in_mode(dense), untouched(dense):
            _require_sizes(dense, content["sizes"], given)
            network = slimmed.regrow(dense, plans_in(content), given)
    except PruningError as error:
        raise CheckpointError(
            f"{path} was pruned from another {content[OWN]} than this {type(dense).__name__}: "
            f"{error}"
        ) from error
    add_position_biases_as_in(network, content["network"])
    fit_weights(network, content["network"], path)
    return network


def _in_type_of(network: nn.Module, example: Any) -> Any:
    """Returns `example` in the type of the weights, which may have changed since it was stored."""
    kinds = {weight.dtype for weight in network.parameters() if weight.is_floating_point()}
    if example is None or len(kinds) != 1:
        return example
    [kind] = kinds
    return changed(example, lambda t: t.to(kind) if t.is_floating_point() else t)


def _require_sizes(dense: nn.Module, sizes: Mapping[str, int], example: Example) -> None:
    """Raises unless the groups of `dense` are as wide as those that were cut.

    Raises:
        PruningError: a group has another width.
    """
    found = {group.name: group.size for group in trace(dense, example).groups}
    for name in [*sizes, *found]:
        if sizes.get(name) != found.get(name):
            had, has = (f"{count or 'no'} channels" for count in (sizes.get(name), found.get(name)))
            raise PruningError(f"group '{name}' had {had} and has {has} here")
