"""Writes a network as one readable Python file of plain torch, with its weights beside it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunebench.errors import CheckpointError, first_line
from prunebench.export.code import source_code
from prunebench.export.formats import Opened, plain_tensors
from prunebench.measure import macs, params

EXAMPLE = """{title}.

Needs torch and safetensors alone. Input: {input}.

    network = {module}.load()
    outputs = network(images)  # float32 [n, {channels}, {height}, {width}]
"""


def write(network: nn.Module, example: Tensor, path: Path, about: Mapping[str, Any]) -> None:
    """Writes code and weights; see `Format`."""
    from safetensors.torch import save

    channels, height, width = example.shape[1:]
    text = EXAMPLE.format(
        title=about["title"], input=about["input"], module=about["name"],
        channels=channels, height=height, width=width,
    )  # fmt: skip
    path.write_text(source_code(network, text), encoding="utf-8")
    path.with_suffix(".safetensors").write_bytes(save(plain_tensors(network)))


def carry(path: Path, certificate: str) -> None:
    """Does nothing: the certificate lies beside the file only."""


def opened(path: Path, shape: tuple[int, ...]) -> Opened:
    """Imports the file, which runs it; see `Format`."""
    missing = [each for each in files(path) if not each.is_file()]
    if missing:
        raise CheckpointError(f"{missing[0]} is missing, which belongs to {path}")
    try:
        network = _imported(path).load()
    except Exception as error:
        raise CheckpointError(
            f"{path} does not run: {type(error).__name__}: {first_line(error)}"
        ) from error
    counts = {"params": params(network), "macs": macs(network, torch.zeros(1, *shape))}
    return Opened(network, counts, "")


def files(path: Path) -> list[Path]:
    """Returns the files with code and weights."""
    return [path, path.with_suffix(".safetensors")]


def _imported(path: Path) -> Any:
    """Runs the file and returns it as a module outside ``sys.modules``; writes no bytecode."""
    spec = importlib.util.spec_from_file_location("prunebench_exported", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module
