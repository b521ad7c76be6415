"""Writes and reads torch.export programs, which torch runs without the network's code."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from prunebench.channels.multiply_adds import MultiplyAdds, taken_apart
from prunebench.errors import CheckpointError, ConfigError, first_line
from prunebench.export.formats import Opened, random_images

#: extra files inside the program: the certificate, and what the input must be
CERTIFICATE, INPUT = "prunebench.certificate.json", "prunebench.input.txt"


def write(network: nn.Module, example: Tensor, path: Path, about: Mapping[str, Any]) -> None:
    """Writes `network`; see `Format`."""
    try:
        with warnings.catch_warnings(action="ignore"):
            program = torch.export.export(
                copy.deepcopy(network), (example,), dynamic_shapes=({0: Dim("batch")},)
            )
    except Exception as error:
        raise ConfigError(f"torch.export cannot take the network: {first_line(error)}") from error
    _save(program, path, {INPUT: about["input"]})


def carry(path: Path, certificate: str) -> None:
    """Stores the certificate as an extra file inside the program's file."""
    program, extra = _load(path)
    _save(program, path, {INPUT: extra[INPUT], CERTIFICATE: certificate})


def opened(path: Path, shape: tuple[int, ...]) -> Opened:
    """Reads the file; see `Format`."""
    program, extra = _load(path)
    module = program.module()
    with torch.no_grad(), taken_apart(), MultiplyAdds() as counter:
        module(random_images(shape, 2))
    counts = {
        "params": sum(parameter.numel() for parameter in program.parameters()),
        "macs": counter.total // 2,  # two images
    }
    return Opened(module, counts, extra[CERTIFICATE])


def files(path: Path) -> list[Path]:
    """Returns the one file."""
    return [path]


def _save(program: ExportedProgram, path: Path, extra: Mapping[str, str]) -> None:
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        torch.export.save(program, buffer, extra_files=dict(extra))
    path.write_bytes(buffer.getvalue())


def _load(path: Path) -> tuple[ExportedProgram, dict[str, str]]:
    extra: dict[str, Any] = {CERTIFICATE: "", INPUT: ""}
    try:
        with warnings.catch_warnings(action="ignore"):
            program = torch.export.load(io.BytesIO(path.read_bytes()), extra_files=extra)
    except Exception as error:
        raise CheckpointError(f"{path} is no exported program ({first_line(error)})") from error
    found = {k: v.decode() if isinstance(v, bytes) else str(v) for k, v in extra.items()}
    return program, found
