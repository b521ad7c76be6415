"""Loads what is exported: the slim network of a run, or one of the user's own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunebench.channels import Plan
from prunebench.checkpoints import slimmed
from prunebench.checkpoints.own import OWN, restored
from prunebench.errors import CheckpointError
from prunebench.export import certificate as certificates
from prunebench.export.own import Own
from prunebench.records import REPORT, Measurement, Report, from_json

#: file in a run's folder with the slim network's best weights by validation accuracy
BEST = "slim_best_val.pt"


@dataclass(frozen=True)
class Source:
    """Holds a slim network and what is known of it.

    Attributes:
        file: it was loaded from.
        network: slim, in eval mode on the CPU.
        content: of a run's file: ``model``, ``shape``, ``classes``, ``plans``, and ``mean`` and
            ``std`` if known.
        report: of its run; None if there is none beside the file.
        built: the user's own dense network, with random weights; None for a run's network.
    """

    file: Path
    network: nn.Module
    content: Mapping[str, Any]
    report: Report | None
    built: nn.Module | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of an image."""
        c, h, w = self.content["shape"]
        return c, h, w

    @property
    def plan(self) -> Plan:
        """All cuts as one plan for the dense network."""
        return reduce(Plan.compose, map(Plan.from_json, self.content["plans"]), Plan({}))

    @property
    def normalisation(self) -> slimmed.Normalisation | None:
        """Mean and std that the network expects; None if unknown."""
        if "mean" not in self.content:
            return None
        return slimmed.Normalisation(tuple(self.content["mean"]), tuple(self.content["std"]))

    @property
    def example(self) -> Tensor:
        """An image [1, C, H, W]."""
        return slimmed.tracing_image(self.shape)

    def dense(self) -> nn.Module:
        """Returns the network before it was cut, with random weights."""
        if self.built is not None:
            return copy.deepcopy(self.built)
        torch.manual_seed(0)
        return slimmed.dense(self.content, self.file, self.content["network"])

    def measured(self, stage: str) -> Measurement | None:
        """Returns the report's measurement of the ``dense`` or ``slim`` network, if any."""
        if self.report is None:
            return None
        last = "finetuned_best_val" if self.file.name == BEST else "finetuned_last"
        slim = (last, "repaired", "pruned")  # the first that was measured
        stages = ("baseline",) if stage == "dense" else slim
        return next(filter(None, map(self.report.at, stages)), None)


def found(path: Path, own: Own | None = None) -> Source:
    """Returns the slim network that `path` names: a run's folder, its report, or the file itself.

    Args:
        path: as typed.
        own: how the user's own dense network is built; None for a run's network.

    Raises:
        CheckpointError: there is no network, it is damaged, or `own` is missing or superfluous.
        ConfigError: `own` builds no network.
        DataError: the report is damaged.
    """
    file = slimmed.file_of(path)
    if certificates.beside(file).is_file():
        raise CheckpointError(f"{file} is exported already: prunebench check {file} verifies it")
    content = slimmed.read(file)
    if OWN in content:
        return _of_ones_own(file, content, own)
    if own is not None:
        raise CheckpointError(f"{file} comes from a run and says of what; leave --model out")
    beside = file.parent / REPORT
    text = beside.read_text(encoding="utf-8") if beside.is_file() else None
    report = None if text is None else from_json(Report, text, str(beside))
    return Source(file, slimmed.load(file), content, report)


def _of_ones_own(file: Path, content: Mapping[str, Any], own: Own | None) -> Source:
    """Returns the network in a file of `prunebench.save`; see `found`."""
    if own is None:
        raise CheckpointError(
            f"{file} holds a {content[OWN]} of your own, and no code; say what builds the dense "
            "one: --model my.module.Net, with --kwargs '{width: 8}' if need be"
        )
    example = content["example"]
    if not isinstance(example, Tensor) or example.dim() != 4:
        raise CheckpointError(
            f"{file}: only networks that take images [n, C, H, W] alone are exported here; take "
            "prunebench.load(FILE, model=...) to torch.onnx.export or torch.export"
        )
    dense = own.built()
    network = restored(file, content, dense, slimmed.tracing_image(example.shape[1:])).eval()
    with torch.no_grad():
        outputs = network(slimmed.tracing_image(example.shape[1:]))
    if not isinstance(outputs, Tensor):
        kind = type(outputs).__name__
        raise CheckpointError(f"{file}: it returns a {kind}, and only one tensor is exported here")
    values = {
        "model": own.section,
        "shape": list(example.shape[1:]),
        "classes": outputs.shape[-1],
        "plans": content["plans"],
    }
    return Source(file, network, values, None, dense)
