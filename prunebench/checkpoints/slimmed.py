"""Stores the slim network of a run: all that rebuilds it, without pickled code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunebench import checkpoints
from prunebench.channels import Example, Plan, add_position_biases_as_in, rewire, slim, trace
from prunebench.checkpoints.foreign import fit_weights
from prunebench.errors import CheckpointError, PruningError
from prunebench.models import as_recorded, rationed
from prunebench.records import FAILURE, REPORT

#: version of the file's layout
FORMAT = 1
#: name of the slim network in a run's folder
SLIM = "slim.pt"


@dataclass(frozen=True)
class Provenance:
    """How a slimmed network was made: the dense network and the plans.

    Attributes:
        model: the model section of the configuration.
        shape: (C, H, W) of an image.
        classes: number of classes.
        plans: one per pruning step, each in the numbering of the network it was applied to.
        wiring: name -> index of each `GatherChannels` of the dense network.
        mean, std: per channel; the network expects (pixel / 255 - mean) / std.
    """

    model: dict[str, Any]
    shape: tuple[int, int, int]
    classes: int
    plans: tuple[Plan, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    wiring: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Normalisation:
    """The normalisation of a network's images: (value - mean) / std, with values from 0 to 1.

    Attributes:
        mean, std: per channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Returns `images` [..., C, H, W] normalised; uint8 values are divided by 255 first."""
        values = images / 255 if images.dtype == torch.uint8 else images
        mean, std = (values.new_tensor(each)[:, None, None] for each in (self.mean, self.std))
        return (values - mean) / std


def tracing_image(shape: Sequence[int]) -> torch.Tensor:
    """Returns a reproducible image [1, C, H, W] to trace and verify networks with."""
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))


def regrow(network: nn.Module, plans: Sequence[Plan], example: Example) -> nn.Module:
    """Returns the dense `network` slimmed by `plans` in turn; its weights are still to load."""
    for plan in plans:
        network = slim(network, trace(network, example), plan)
    return network


def save(path: Path, network: nn.Module, provenance: Provenance) -> None:
    """Writes the slimmed `network` so that `load` can rebuild it in another process."""
    checkpoints.save(
        path,
        {
            "format": FORMAT,
            "model": provenance.model,
            "shape": list(provenance.shape),
            "classes": provenance.classes,
            "plans": [plan.to_json() for plan in provenance.plans],
            "mean": list(provenance.mean),
            "std": list(provenance.std),
            "wiring": {name: list(index) for name, index in provenance.wiring.items()},
            "network": network.state_dict(),
        },
    )


def file_of(path: Path) -> Path:
    """Returns the slim file that `path` stands for: a run's folder, its report, or itself.

    Raises:
        CheckpointError: there is none.
    """
    folder = path.parent if path.name == REPORT else path
    if path.is_dir() or path.name == REPORT:
        if (folder / SLIM).is_file():
            return folder / SLIM
        if (folder / FAILURE).is_file():
            raise CheckpointError(f"{folder} holds a run that failed: see its {FAILURE}")
        if not folder.is_dir():
            raise CheckpointError(f"{folder} does not exist")
        raise CheckpointError(
            f"{folder} holds no {SLIM}; give the folder of a run that finished (prunebench status "
            "lists them), its report.json or its slim.pt"
        )
    if path.suffix == ".json":
        raise CheckpointError(
            f"{path} is no {REPORT}; give the folder of a run, its {REPORT} or its {SLIM}"
        )
    return path


def read(path: Path) -> dict[str, Any]:
    """Returns the content of a file with a slimmed network.

    Raises:
        CheckpointError: the file is missing, damaged, or not a slimmed network of prunebench.
    """
    content = checkpoints.load(path)
    if content.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a slimmed network that this prunebench wrote")
    return content


def dense(
    described: Mapping[str, Any], path: str | Path, weights: Mapping[str, torch.Tensor]
) -> nn.Module:
    """Returns the dense network of a slimmed one, in eval mode, with random weights.

    Args:
        described: its description in the file: model, shape, classes and wiring.
        path: path of the file, for messages.
        weights: weights of the slimmed network in the file.

    Raises:
        CheckpointError: the file does not describe a network.
        ConfigError: it describes a network far too large for it, or a class that is not trusted.
    """
    try:
        model, shape = dict(described["model"]), tuple(map(int, described["shape"]))
        classes, held = int(described["classes"]), sum(value.nbytes for value in weights.values())
        sound = len(shape) == 3 and min(*shape, classes) > 0
    except (KeyError, TypeError, ValueError, AttributeError):
        sound = False
    if not sound:
        raise CheckpointError(f"{path} does not say to which network its weights belong")
    spec = as_recorded({**model, **({"weights": None} if "weights" in model else {})}, str(path))
    network = rationed.build(spec, shape, classes, source=str(path), held=held).eval()
    try:
        rewire(network, described.get("wiring", {}))
    except (PruningError, TypeError, AttributeError):
        raise CheckpointError(f"{path} gives an invalid order of channels") from None
    return network


def load(path: str | Path) -> nn.Module:
    """Returns the slimmed network that a run saved, in eval mode on the CPU.

    It has the attributes `plan`, `normalisation` (for its images) and `report` (None).

    Raises:
        CheckpointError: the file is missing, damaged, or not a slimmed network of a run.
    """
    content = read(Path(path))
    if "model" not in content:
        raise CheckpointError(f"{path} holds no network of a run")
    try:
        weights = content["network"]
        plans = [Plan.from_json(text) for text in content["plans"]]
        normalisation = Normalisation(tuple(content["mean"]), tuple(content["std"]))
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{path} does not say to which network its weights belong") from None
    whole = dense(content, path, weights)
    network = regrow(whole, plans, tracing_image(content["shape"]))
    add_position_biases_as_in(network, weights)
    fit_weights(network, weights, Path(path))
    found = {
        "plan": reduce(Plan.compose, plans, Plan({})),
        "report": None,
        "normalisation": normalisation,
    }
    for name, value in found.items():
        setattr(network, name, value)
    return network.eval()
