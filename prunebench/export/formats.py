"""Defines what every format offers: to write a network, read it again, count it, certify it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from prunebench.measure.engines import Runner


@dataclass(frozen=True)
class Opened:
    """Holds an exported network that was read again.

    Attributes:
        run: takes images and returns outputs.
        counts: convention -> count on the file, for some of the conventions.
        certificate: the text inside the file; "" if it has none.
    """

    run: Runner
    counts: Mapping[str, int]
    certificate: str


class Format(Protocol):
    """Says what each module for a format offers."""

    def write(
        self, network: nn.Module, example: Tensor, path: Path, about: Mapping[str, Any]
    ) -> None:
        """Writes `network`, and notes `about` in the file.

        Args:
            network: in eval mode on the CPU.
            example: images [2 or more, C, H, W].
            path: of the file; further files lie beside it.
            about: ``title`` and ``input`` as text, ``structure`` as data to rebuild the network
                from.

        Raises:
            ConfigError: a package is missing, or the format cannot hold this network.
        """

    def carry(self, path: Path, certificate: str) -> None:
        """Stores the text of a certificate inside the file, if the format allows it."""

    def opened(self, path: Path, shape: tuple[int, ...]) -> Opened:
        """Reads the file again.

        Args:
            path: of the file.
            shape: (C, H, W) of an image.

        Raises:
            PrunebenchError: it cannot be read, or a package is missing.
        """

    def files(self, path: Path) -> list[Path]:
        """Returns all files that belong to the one at `path`, which comes first."""


def plain_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Returns the state of `network` as safetensors needs it: contiguous, nothing shared."""
    state = network.state_dict()
    return {name: value.detach().clone().contiguous() for name, value in state.items()}


def random_images(shape: tuple[int, ...], count: int = 2) -> Tensor:
    """Returns `count` images of `shape` that are the same on every machine."""
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))
