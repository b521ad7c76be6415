"""Keeps what Hydra writes into the folder of a run, and removes folders it made for nothing."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf


def notes_on(cfg: DictConfig) -> dict[str, str]:
    """Returns name -> text of the files in which Hydra records how `cfg` was composed."""
    overrides = HydraConfig.get().overrides.task
    texts = {"config": cfg, "hydra": HydraConfig.instance().cfg, "overrides": overrides}
    return {f".hydra/{name}.yaml": OmegaConf.to_yaml(value) for name, value in texts.items()}


def remove_unused(folder: Path, note: str) -> None:
    """Removes a folder that is empty or holds only the file `note`, and empty parents.

    Parents are removed only below the current folder.
    """
    with suppress(OSError):  # it holds other files, or another process has removed it
        here = Path.cwd()
        if folder.absolute() == here:
            return
        if [path.name for path in folder.iterdir()] == [note]:
            (folder / note).unlink()
        folder.rmdir()
        for parent in folder.absolute().parents:
            if here in parent.parents:
                parent.rmdir()
