"""Builds a user's own dense network, whose slim one was saved without code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunebench.errors import ConfigError, first_line, require
from prunebench.models.imported import Imported
from prunebench.options.code import imported, make_importable


@dataclass(frozen=True)
class Own:
    """Names what builds the network; the user types it, so any function or class is allowed.

    Attributes:
        target: ``module.name`` as Python imports it.
        kwargs: keyword arguments of the call.
    """

    target: str
    kwargs: Mapping[str, Any]

    @property
    def section(self) -> dict[str, Any]:
        """The model section of a configuration that builds the same network, for exported files."""
        kind = f"{Imported.__module__}.{Imported.__name__}"
        return {"_target_": kind, "target": self.target, "kwargs": dict(self.kwargs), "code": None}

    def built(self) -> nn.Module:
        """Returns the network in eval mode, with random weights.

        Raises:
            ConfigError: the name does not exist, or the call does not return a network.
        """
        require(
            "." in self.target.strip("."),
            f"--model must name a class as Python imports it, such as my.module.Net; got "
            f"'{self.target}'",
        )
        make_importable(self.target, [Path.cwd()])
        call = imported("--model", self.target)
        torch.manual_seed(0)
        try:
            made = call(**self.kwargs)
        except Exception as error:
            raise ConfigError(
                f"--kwargs {dict(self.kwargs)}: {self.target} cannot be built "
                f"({type(error).__name__}: {first_line(error)})"
            ) from error
        require(isinstance(made, nn.Module), f"--model {self.target} makes a {type(made).__name__}")
        network: nn.Module = made
        return network.eval()
