"""Finds and reads the YAML files of options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from prunebench.options.aliases import require_short

#: groups whose options only choose options of other groups
PRESETS = ("method", "experiment")


def conf_dir() -> Path:
    """Returns the absolute folder of the shipped YAMLs: in the wheel, or beside the package."""
    here = Path(__file__).resolve().parents[1]
    packaged = here / "conf"
    return packaged if packaged.is_dir() else here.parent / "conf"


def find_option(group: str, name: str, folders: Sequence[Path]) -> Path | None:
    """Returns the YAML of an option in the first of `folders` that has it; None if none has."""
    paths = [folder / group / f"{name}.yaml" for folder in folders]
    return next((path for path in paths if path.is_file()), None)


def option_groups(folders: Sequence[Path]) -> set[str]:
    """Returns the groups with options in `folders`, ``recipe/phase`` among them."""
    homes = {
        path.parent.relative_to(folder).as_posix()
        for folder in folders
        for path in folder.rglob("*.yaml")
    }
    return homes - {"."}


def option_names(group: str, folders: Sequence[Path]) -> list[str]:
    """Returns the names of all options of `group` in `folders`."""
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def read_option(path: Path) -> dict[str, Any]:
    """Returns the content of an option's YAML; interpolations are left as written."""
    return deepcopy(_read_option(path, path.stat().st_mtime_ns))


@cache
def _read_option(path: Path, _changed: int) -> dict[str, Any]:
    """Returns the same, cached until the file's time of change, `_changed`, differs."""
    require_short(path, path.read_text(encoding="utf-8"))
    values = OmegaConf.to_container(OmegaConf.load(path))
    return {str(key): value for key, value in values.items()} if isinstance(values, dict) else {}


def choices_of(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns group -> option that the defaults list of a preset's YAML chooses."""
    chosen = {}
    for line in values.get("defaults", []):
        if isinstance(line, Mapping):
            for key, option in line.items():
                chosen[str(key).removeprefix("override ").removeprefix("/")] = str(option)
    return chosen
