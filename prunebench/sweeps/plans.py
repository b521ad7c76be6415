"""Reads from Hydra's files which jobs a sweep has, and composes the command to complete it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob
from hydra.errors import HydraException

from prunebench.errors import DataError
from prunebench.options.files import option_names
from prunebench.records.below import below
from prunebench.records.unfinished import IDENTITY

#: file that Hydra writes into the folder of a sweep
SWEEP = "multirun.yaml"
#: Hydra's default for --config-name
CONFIG = "config"
#: settings that the command to complete a sweep or run sets itself
PLACES = ("hydra.sweep.dir=", "hydra.run.dir=", "hydra.mode=", "run.resume=")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Describes one command that was typed: a sweep, or a single run.

    Attributes:
        folder: of the sweep or the run.
        cwd: where it was typed.
        words: of the command that completes it.
        jobs: overrides of each job; empty if only the sweeper knows them (a search).
    """

    folder: Path
    cwd: Path
    words: list[str]
    jobs: list[list[str]]


def sweep_in(folder: Path) -> Asked:
    """Returns the sweep that belongs to `folder`.

    Raises:
        DataError: Hydra's record of it cannot be read.
    """
    hydra = _hydra(folder / SWEEP)
    task = typed(hydra["overrides"]["task"])
    words = ["-m", *_words(hydra, task), f"hydra.sweep.dir={folder.resolve()}"]
    params = hydra["sweeper"].get("params") or {}
    swept = [*(f"{key}={value}" for key, value in params.items()), *task]
    grid = str(hydra["sweeper"]["_target_"]).endswith("BasicSweeper")
    return Asked(
        folder=folder,
        cwd=Path(hydra["runtime"]["cwd"]),
        words=[*words, "run.resume=true"],
        jobs=jobs_of(swept, places(hydra)) if grid else [],
    )


def run_in(folder: Path) -> Asked:
    """Returns the single run that belongs to `folder`.

    Raises:
        DataError: Hydra's record of it cannot be read.
    """
    hydra = _hydra(folder / ".hydra" / "hydra.yaml")
    task = typed(hydra["overrides"]["task"])
    words = [*_words(hydra, task), f"hydra.run.dir={folder.resolve()}", "run.resume=true"]
    return Asked(folder=folder, cwd=Path(hydra["runtime"]["cwd"]), words=words, jobs=[task])


def job_words(folder: Path) -> list[str]:
    """Returns the overrides of the job that a run's folder belongs to; [] if unknown."""
    try:
        text = (folder / ".hydra" / "overrides.yaml").read_text(encoding="utf-8")
        return typed(yaml.load(text, yaml.CSafeLoader) or [])
    except (OSError, ValueError, TypeError, yaml.YAMLError):
        return []


def jobs_of(words: Sequence[str], where: Sequence[Path] = ()) -> list[list[str]]:
    """Returns the overrides of each job of a grid, in the order of their numbers.

    Args:
        words: as typed.
        where: folders of the options that ``group=glob(*)`` stands for.
    """
    try:
        overrides = OverridesParser.create().parse_overrides(list(words))
        for override in overrides:
            if isinstance(override._value, Glob):
                names = override._value.filter(option_names(override.key_or_group, where))
                override._value = ChoiceSweep(list=list(names))
        batches = BasicSweeper.split_arguments(overrides, None)
    except HydraException:  # an interval, from which only a search sweeper can draw
        return []
    return [job for batch in batches for job in batch]


def folders(root: Path) -> tuple[list[Path], list[Path]]:
    """Returns the folders of all sweeps below `root`, and those of runs outside them."""
    sweeps = [path.parent for path in below(root, SWEEP)]
    runs = [path.parent for path in below(root, IDENTITY)]
    return sweeps, [run for run in runs if not any(sweep in run.parents for sweep in sweeps)]


def places(hydra: Any) -> list[Path]:
    """Returns the folders of options for ``glob(*)``, which ignores hydra.searchpath."""
    sources = hydra["runtime"]["config_sources"]
    found = [source["path"] for source in sources if source["provider"] in ("main", "command-line")]
    return [Path(hydra["runtime"]["cwd"], path) for path in found]


def _words(hydra: Any, task: Sequence[str]) -> list[str]:
    """Returns the flags and words of the command, without those that `typed` leaves out."""
    sources = hydra["runtime"]["config_sources"]
    own = [source["path"] for source in sources if source["provider"] == "command-line"]
    flags = [word for path in own for word in ("--config-dir", str(path))]
    name = str(hydra["job"].get("config_name") or CONFIG)
    flags += ["--config-name", name] if name != CONFIG else []
    return [*flags, *task, *typed(hydra["overrides"]["hydra"])]


def typed(words: Iterable[object]) -> list[str]:
    """Returns `words` without those that the completing command sets itself."""
    return [word for word in map(str, words) if not word.lstrip("+").startswith(PLACES)]


def _hydra(path: Path) -> Any:
    """Returns Hydra's own configuration, which it wrote to `path`.

    Raises:
        DataError: it cannot be read.
    """
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)["hydra"]
        return {key: found[key] for key in ("job", "overrides", "runtime", "sweeper")}
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read ({type(error).__name__})") from None
