"""Finds the dense network that a slim one was cut from, and its trained weights."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from prunebench import checkpoints
from prunebench.channels import Plan, in_mode, rewire, slim, trace, verify
from prunebench.checkpoints.foreign import load_weights
from prunebench.errors import PrunebenchError
from prunebench.export.certificate import Base, Surgery, weights_digest
from prunebench.export.source import Source


def dense_of(source: Source) -> tuple[nn.Module, Base]:
    """Returns the dense network of `source`, and where its weights come from.

    If the trained weights are not available, they are random.
    """
    network = source.dense()
    try:
        origin = _trained(network, source)
    except PrunebenchError as error:
        return network, Base(weights=None, origin=f"not at hand: {error}")
    return network.eval(), Base(weights=weights_digest(network.state_dict()), origin=origin)


def _trained(network: nn.Module, source: Source) -> str:
    """Loads the trained weights into `network`; returns where they come from.

    Raises:
        PrunebenchError: they are not available.
    """
    report = source.report
    if report is None:
        raise PrunebenchError("no report.json beside the network names them")
    given = report.config["baseline"]["checkpoint"]
    if given:
        load_weights(network, Path(given))
        return f"checkpoint {Path(given).name}"
    if not report.baseline:
        raise PrunebenchError("they are in no store of baselines")
    outputs = [Path(report.config["run"]["outputs"]), *source.file.absolute().parents]
    for folder in outputs:
        stored = folder / "baselines" / report.baseline / "stages" / "baseline.pt"
        if stored.is_file():
            network.load_state_dict(checkpoints.load(stored)["network"])
            return f"baseline store ({report.baseline})"
    raise PrunebenchError(f"there is no entry {report.baseline} in a store of baselines")


def surgery(source: Source, dense: nn.Module, base: Base) -> Surgery:
    """Returns how exact the cut of `dense` by the plan of `source` is."""
    found = {}
    for dtype in (torch.float32, torch.float64):
        network = copy.deepcopy(dense).to(dtype).eval()
        rewire(network, source.content.get("wiring", {}))
        found[dtype] = _error(network, source.plan, source.example.to(dtype))
    report = source.report
    return Surgery(
        recorded=max(step.surgery_error for step in report.steps) if report else None,
        float32=found[torch.float32],
        float64=found[torch.float64],
        weights="trained" if base.weights else "drawn at random",
    )


def _error(network: nn.Module, plan: Plan, example: Tensor) -> float:
    with in_mode(network):
        cmap = trace(network, example)
        return verify(network, slim(network, cmap, plan), cmap, plan, example)
