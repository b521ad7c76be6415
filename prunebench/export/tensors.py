"""Writes and reads safetensors: the weights, with metadata that rebuild the network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunebench.channels import Plan, add_position_biases_as_in
from prunebench.checkpoints import slimmed
from prunebench.checkpoints.foreign import fit_weights
from prunebench.errors import CheckpointError
from prunebench.export.formats import Opened, plain_tensors
from prunebench.measure import macs, params

#: keys of the metadata
STRUCTURE, INPUT, CERTIFICATE = "prunebench.structure", "prunebench.input", "prunebench.certificate"


def write(network: nn.Module, example: Tensor, path: Path, about: Mapping[str, Any]) -> None:
    """Writes the weights of `network`; see `Format`."""
    from safetensors.torch import save

    metadata = {INPUT: about["input"], STRUCTURE: json.dumps(about["structure"])}
    path.write_bytes(save(plain_tensors(network), metadata))


def carry(path: Path, certificate: str) -> None:
    """Stores the certificate in the metadata."""
    from safetensors.torch import save

    tensors, metadata = _load(path)
    path.write_bytes(save(tensors, {**metadata, CERTIFICATE: certificate}))


def opened(path: Path, shape: tuple[int, ...]) -> Opened:
    """Rebuilds the network from metadata and weights; see `Format`."""
    tensors, metadata = _load(path)
    try:
        held = json.loads(metadata[STRUCTURE])
        plans = [Plan.from_json(text) for text in held["plans"]]
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{path} does not say to which network its weights belong") from None
    dense, image = slimmed.dense(held, path, tensors), slimmed.tracing_image(held["shape"])
    network = slimmed.regrow(dense, plans, image)
    add_position_biases_as_in(network, tensors)
    fit_weights(network, tensors, path)
    counts = {"params": params(network), "macs": macs(network, torch.zeros_like(image))}
    return Opened(network.eval(), counts, metadata.get(CERTIFICATE, ""))


def files(path: Path) -> list[Path]:
    """Returns the one file."""
    return [path]


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns the tensors and the metadata."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is no valid safetensors file: {error}") from None
