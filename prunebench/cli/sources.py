"""Where Hydra reads YAML from: as before, but no file may unfold without end."""

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
    """Hydra's own, whose name it must have: Hydra then leaves it in its place."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Returns the file's content.

        Raises:
            ConfigError: it unfolds to more than any option holds, or has a secret in it.
        """
        path = Path(os.path.realpath(Path(self.path) / self._normalize_file_name(config_path)))
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            require_short(path, text)
            require_no_secret(path, text)
        return super().load_config(config_path)


class StructuredConfigSource(structured_config_source.StructuredConfigSource):
    """Hydra's own, which it copies for each group that --help lists and Tab looks through.

    Nothing changes one, and with it goes all that Hydra and its plugins ship: it is its own copy.
    """

    def __deepcopy__(self, _memo: object) -> Self:
        """Returns the very same."""
        return self


def read_with_care() -> None:
    """Has Hydra read through the classes above."""
    for source in (FileConfigSource, StructuredConfigSource):
        SourcesRegistry.instance().types[source.scheme()] = source
