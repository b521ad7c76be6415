"""What Hydra writes into a run's folder: kept where the folder is the run's own, else removed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf


def notes_on(cfg: DictConfig) -> dict[str, str]:
    """Returns the files in which Hydra keeps how `cfg` was composed, name -> text."""
    overrides = HydraConfig.get().overrides.task
    texts = {"config": cfg, "hydra": HydraConfig.instance().cfg, "overrides": overrides}
    return {f".hydra/{name}.yaml": OmegaConf.to_yaml(value) for name, value in texts.items()}


def remove_unused(folder: Path, note: str) -> None:
    """Removes a folder that holds nothing, or a file `note` alone, and what it leaves empty above.

    Above it, nothing is removed but what lies below the current folder.
    """
    with suppress(OSError):  # other files are in there, or another process was faster
        here = Path.cwd()
        if folder.absolute() == here:
            return
        if [path.name for path in folder.iterdir()] == [note]:
            (folder / note).unlink()
        folder.rmdir()
        for parent in folder.absolute().parents:
            if here in parent.parents:
                parent.rmdir()
