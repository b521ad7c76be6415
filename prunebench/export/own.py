"""How the dense network of one's own is built, whose slim one was saved without any code."""

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
    """What the user names; since they type it, it may be a function as well as a class.

    Attributes:
        target: ``module.name`` as Python imports it.
        kwargs: that it is called with.
    """

    target: str
    kwargs: Mapping[str, Any]

    @property
    def section(self) -> dict[str, Any]:
        """The model section of a configuration that says the same, for files that name it."""
        kind = f"{Imported.__module__}.{Imported.__name__}"
        return {"_target_": kind, "target": self.target, "kwargs": dict(self.kwargs), "code": None}

    def built(self) -> nn.Module:
        """Returns the network in eval mode, with weights drawn at random.

        Raises:
            ConfigError: there is no such name, or it makes no network of the keywords.
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
