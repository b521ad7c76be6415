"""Saves and loads slim networks: the user's own, without pickle, and those of runs."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from torch import Tensor, nn

from prunebench import checkpoints
from prunebench.api.result import LINEAGE, Lineage, PruningReport, Slim, hold, lineage_of
from prunebench.channels import Example, Plan
from prunebench.channels.followable import is_wrapped, plain, require_followable
from prunebench.checkpoints import own, slimmed
from prunebench.checkpoints.own import OWN
from prunebench.errors import CheckpointError
from prunebench.records import from_json, to_json


class Loaded(nn.Module):
    """Types what `load` returns; the actual network has a class of its own.

    Attributes:
        plan: which channels of the dense network are kept.
        report: of `prune`; None for a run's network, whose folder has a report.json.
        normalisation: what a run's network expects of images; None for the user's own.
    """

    plan: Plan
    report: PruningReport | None
    normalisation: slimmed.Normalisation | None


def save(model: nn.Module, path: str | Path) -> None:
    """Writes a network from `prune`, fine-tuned or not, so that `load` can rebuild it.

    The file holds weights, plans and the report, but no code, and `load` runs none.

    Raises:
        CheckpointError: the network is not from `prune`, or its state is more than tensors.
    """
    network = plain(model)
    lineage = lineage_of(network)
    if lineage is None:
        raise CheckpointError(
            f"this {type(network).__name__} does not come from prunebench.prune (or is wrapped in "
            "another module); save what prune returned, or its state_dict with torch.save"
        )
    state = network.state_dict()
    strange = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if strange:
        raise CheckpointError(f"{strange[0]} of the network is no tensor, and is not saved")
    wrapped = [(name, type(value).__name__) for name, value in state.items() if is_wrapped(value)]
    if wrapped:
        raise CheckpointError(
            f"{wrapped[0][0]} of the network is a {wrapped[0][1]}, which load could not read; save "
            "the network before it is sharded or quantized, or load whole weights into a copy"
        )
    checkpoints.save(
        Path(path),
        {
            "format": slimmed.FORMAT,
            OWN: type(network).__name__,
            "plans": [plan.to_json() for plan in lineage.plans],
            "plan": cast(Slim, network).plan.to_json(),
            "report": to_json(cast(Slim, network).report),
            "sizes": lineage.sizes,
            "example": lineage.example,
            "network": state,
        },
    )


def load(
    path: str | Path, model: nn.Module | None = None, example: Example | None = None
) -> Loaded:
    """Returns a slim network in eval mode: a run's, or the user's own.

    Args:
        path: the folder of a run, its report or its ``slim.pt``; or a file that `save` wrote.
        model: for the user's own, a dense network as before pruning, with any weights; it is left
            unchanged. A run's network needs none.
        example: an input; needed if the one given to `prune` held more than tensors and plain
            values.

    Raises:
        CheckpointError: the file is missing, damaged or of another network.
    """
    path = slimmed.file_of(Path(path))
    content = slimmed.read(path)
    if OWN not in content:
        if model is not None:
            raise CheckpointError(f"{path} comes from a run and is loaded without model=")
        return cast(Loaded, slimmed.load(path))
    if model is None:
        raise CheckpointError(
            f"{path} holds a {content[OWN]} of your own; pass load(path, model=...) the dense "
            "network as it was before pruning"
        )
    require_followable(model)
    network = own.restored(path, content, plain(model), example)
    attributes = {
        "plan": Plan.from_json(content["plan"]),
        "report": from_json(PruningReport, content["report"], str(path)),
        LINEAGE: Lineage(own.plans_in(content), content["sizes"], content["example"]),
        "normalisation": None,
    }
    hold(network, attributes)
    return cast(Loaded, network.eval())
