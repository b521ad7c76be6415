"""Replaces the classes by which Hydra reads YAML, to refuse files that expand without limit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from hydra._internal.core_plugins import file_config_source, structured_config_source
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigResult

from prunebench.config.secrets import require_no_secret
from prunebench.options.aliases import require_short


class FileConfigSource(file_config_source.FileConfigSource):
    """Reads files as Hydra's class does, but checks them first.

    It must have the name of Hydra's class, so that Hydra leaves it registered.
    """

    def load_config(self, config_path: str) -> ConfigResult:
        """Returns the file's content.

        Raises:
            ConfigError: it expands to more than any option holds, or contains a secret.
        """
        path = Path(os.path.realpath(Path(self.path) / self._normalize_file_name(config_path)))
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            require_short(path, text)
            require_no_secret(path, text)
        return super().load_config(config_path)


class StructuredConfigSource(structured_config_source.StructuredConfigSource):
    """Reads structured configs as Hydra does, but is not copied for every group that is listed.

    Copying it copies everything that Hydra and its plugins ship, for each group that --help lists
    or Tab searches. Nothing changes it, so one object is enough.
    """

    def __deepcopy__(self, _memo: object) -> Self:
        """Returns the same object."""
        return self


def read_with_care() -> None:
    """Makes Hydra read through the classes above."""
    for source in (FileConfigSource, StructuredConfigSource):
        SourcesRegistry.instance().types[source.scheme()] = source
