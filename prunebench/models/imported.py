"""A user's own network class, by the name under which Python imports it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prunebench.errors import ConfigError, first_line, require
from prunebench.models import ModelSpec
from prunebench.options.code import imported

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Imported(ModelSpec):
    """A network of any module class; the schema of ``conf/model/import.yaml``.

    Functions that return a network are refused: slim files name the target, too, and a stranger's
    file should not be able to call any function with arguments of its choice.

    Attributes:
        target: ``module.Class``, such as ``my.module.Net``.
        kwargs: keyword arguments of the class; null for none.
        code: file or folder whose contents identify the network; null for the module's own file.
    """

    target: str
    kwargs: dict[str, Any] | None
    code: str | None

    def __post_init__(self) -> None:
        """Raises ConfigError unless `target` has the form of a class in a module."""
        require(
            all(part.isidentifier() for part in self.target.split(".")) and "." in self.target,
            f"target must name a class as Python imports it, such as my.module.Net; got "
            f"'{self.target}'",
        )

    @property
    def class_of_others(self) -> str:
        """The class that `target` names."""
        return self.target

    @property
    def missing(self) -> str:
        """Says why the class cannot be imported or called; "" if it can. Imports its module."""
        if self.code is not None and not Path(self.code).exists():
            return f"model.code: there is no file {self.code}"
        try:
            found = self._class()
            inspect.signature(found).bind(**self._kwargs)
        except ConfigError as error:
            return str(error)
        except TypeError as error:
            takes = inspect.signature(found)
            return f"model.kwargs={self._kwargs}: {error}; it is {self.target}{takes}"
        return ""

    @property
    def files(self) -> dict[str, Path]:
        """The file or folder of the code, as the field ``code``, if there is one."""
        if self.code is not None:
            return {"code": Path(self.code)}
        try:
            found = find_spec(self.target.rpartition(".")[0])
        except ImportError:
            return {}
        path = Path(found.origin) if found and found.origin else None
        return {"code": path} if path and path.is_file() else {}

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns the network; whether it fits the data shows only when it is called.

        Raises:
            ConfigError: the class cannot be found, is no module, or fails on its arguments.
        """
        found = self._class()
        try:
            return found(**self._kwargs)
        except Exception as error:
            raise ConfigError(
                f"model.kwargs={self._kwargs}: {self.target} cannot be built "
                f"({type(error).__name__}: {first_line(error)})"
            ) from error

    @property
    def _kwargs(self) -> dict[str, Any]:
        return self.kwargs or {}

    def _class(self) -> type[nn.Module]:
        from torch import nn

        found = imported("model.target", self.target)
        require(
            isinstance(found, type) and issubclass(found, nn.Module),
            f"model.target={self.target} is {found!r:.60}, and no class derived from "
            "torch.nn.Module",
        )
        return cast("type[nn.Module]", found)
