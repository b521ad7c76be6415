"""Turns the composed configuration into a typed, checked `Run`; only here is DictConfig read.

Begin with `load`. Only the module of the chosen model imports torch; it is loaded last, so that
mistakes elsewhere are reported at once. `combinations` says which options go together, `presets`
what methods and experiments may set, `secrets` what no record may contain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from prunebench.budgets import Budget
from prunebench.config.combinations import (
    PRUNING,
    check_combination,
    check_faces,
    check_processes,
    check_repair,
)
from prunebench.config.launched import shared_out
from prunebench.config.secrets import hidden, overlaid
from prunebench.config.sections import Baseline, Settings
from prunebench.criteria import Criterion
from prunebench.datasets import DatasetSpec
from prunebench.errors import ConfigError, first_line, require, unknown
from prunebench.models import ModelSpec
from prunebench.options import component
from prunebench.options.code import file_of
from prunebench.options.files import PRESETS
from prunebench.options.schema import section
from prunebench.recipes import OF_ALL_PHASES, Phase, Recipe
from prunebench.records.identity import contents, deciding
from prunebench.records.jsonfile import digest
from prunebench.repairs import Repair
from prunebench.schedules import Schedule
from prunebench.tracking import Tracker


@dataclass(frozen=True)
class Run:
    """Holds one run, with every option built and checked before anything is trained.

    Attributes:
        config: the resolved configuration as plain values of its fields' types, for the report.
        choices: group -> chosen option.
        contents: dotted key -> sha256 of the file it names; see `DatasetSpec.files`, `own_code`.
        hidden: dotted key -> text, as written, of a value taken from an environment variable.
    """

    settings: Settings
    baseline: Baseline
    dataset: DatasetSpec
    criterion: Criterion
    budget: Budget
    repair: Repair
    schedule: Schedule
    recipe: Recipe
    tracker: Tracker
    model: ModelSpec
    name: str
    config: dict[str, Any]
    choices: dict[str, str]
    contents: dict[str, str]
    hidden: dict[str, Any]

    def phases(self, *, pretrained: bool = False) -> dict[str, Phase]:
        """Returns the phases of the recipe that the run trains, including those with no epochs.

        Args:
            pretrained: whether the model comes with trained weights.
        """
        schedule, given = self.schedule, pretrained or self.baseline.checkpoint is not None
        comes = {
            "baseline": not given or schedule.redraws,
            "between": schedule.pauses,
            "pruning": schedule.trains,
            "finetune": True,
        }
        return {name: phase for name, phase in vars(self.recipe).items() if comes[name]}

    @property
    def recorded(self) -> dict[str, Any]:
        """The configuration for files and trackers, without values of environment variables."""
        return overlaid(self.config, self.hidden)

    @property
    def digest(self) -> str:
        """Digest of all that decides the result; equal for a run and its resumption."""
        return digest(deciding(self.config, self.contents))


def check_name(name: object) -> None:
    """Raises ConfigError unless `name` can be a folder's name below ``run.outputs``."""
    require(
        isinstance(name, str | int | float) and ".." not in str(name).split("/"),
        f"name must be a text and not lead out of its folder by .., got '{name}'",
    )


def require_files(*parts: Baseline | DatasetSpec | ModelSpec) -> None:
    """Raises ConfigError for the first of `parts` that names a file which does not exist."""
    for part in parts:
        require(not part.missing, part.missing)


def named_files(parts: Mapping[str, Baseline | DatasetSpec | ModelSpec]) -> dict[str, Path]:
    """Returns dotted key -> file or folder, for all that `parts` (by section) read."""
    return {
        f"{section}.{field}": path
        for section, part in parts.items()
        for field, path in part.files.items()
    }


def own_code(parts: Mapping[str, object]) -> dict[str, Path]:
    """Returns the source file of each of `parts` (group -> option) whose class is the user's own.

    A change of that code is a change of the run, which no setting shows.
    """
    found = {group: file_of(type(part)) for group, part in parts.items() if group != "tracker"}
    return {f"{group}._target_": path for group, path in found.items() if path is not None}


def plain_values(cfg: DictConfig) -> dict[str, Any]:
    """Returns the composed configuration as resolved plain values.

    Raises:
        ConfigError: a key is unknown or missing.
    """
    known = {"name", "run", "baseline", *GROUPS, "recipe"}
    for key in cfg:
        if str(key) not in {*known, VARIABLES}:
            raise ConfigError(unknown(str(key), {*known, VARIABLES, *PRESETS}))
    try:
        config = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        where = f"{error.full_key}: " if error.full_key else ""
        raise ConfigError(f"{where}{first_line(error)}") from error
    assert isinstance(config, dict)
    for key in sorted(known):
        require(config.get(key) is not None, f"{key} must not be null")
    if isinstance(config["recipe"], dict):
        config["recipe"].pop(OF_ALL_PHASES, None)
    return {str(key): value for key, value in config.items() if key != VARIABLES}


def load(cfg: DictConfig, choices: dict[str, str], *, files: bool = False) -> Run:
    """Returns the Run that `cfg` describes.

    Args:
        cfg: as composed.
        choices: group -> chosen option.
        files: whether the files that the run will read must exist; if so, their contents are part
            of its identity.

    Raises:
        ConfigError: a key is unknown or missing, a value has the wrong type or range, the options
            do not go together, or a file does not exist.
        DataError: a file cannot be read.
    """
    plain = plain_values(cfg)
    check_name(plain["name"])
    settings = section("run", plain["run"], Settings)
    settings = replace(settings, processes=shared_out(settings.processes))
    baseline = section("baseline", plain["baseline"], Baseline)
    recipe = section("recipe", plain["recipe"], Recipe)
    # values of the fields' types, so that 1 and 1.0 are the same setting
    plain |= {"run": asdict(settings), "baseline": asdict(baseline)}
    check_processes(settings.processes, recipe)
    parts = _built(plain, choices, recipe, baseline if files else None)
    require(
        settings.sensitivity is None or not parts["criterion"].watches,
        f"run.sensitivity: criterion={choices.get('criterion')} has no scores before it has "
        "watched a training; choose another criterion",
    )
    check_faces(choices, recipe=recipe, **{k: parts[k] for k in ("model", "dataset", "criterion")})
    recipe = recipe.with_heads() if parts["model"].embeds else recipe
    plain["recipe"] = asdict(recipe)
    parts["dataset"] = parts["dataset"].suited(parts["model"].preset)
    for group, part in parts.items():
        plain[group] = {"_target_": plain[group]["_target_"], **asdict(part)}
    if files:
        require_files(parts["model"])
    read = named_files({"baseline": baseline, **{k: parts[k] for k in ("dataset", "model")}})
    texts = hidden(cfg, read)
    return Run(
        settings=settings,
        baseline=baseline,
        recipe=recipe,
        name=str(texts.get("name", plain["name"])),
        config=plain,
        choices=choices,
        contents=contents(read | own_code(parts)) if files else {},
        hidden=texts,
        **parts,
    )


def _built(
    plain: Mapping[str, Any], choices: dict[str, str], recipe: Recipe, baseline: Baseline | None
) -> dict[str, Any]:
    """Returns the chosen option of each group; the model comes last, since it imports torch.

    Args:
        plain: the configuration.
        choices: group -> chosen option.
        recipe: for which the other options are checked.
        baseline: if given, its file and those of the data set must exist.
    """
    parts: dict[str, Any] = {
        group: component(group, plain[group], base)
        for group, base in GROUPS.items()
        if group != "model"
    }
    check_combination(choices, **{k: parts[k] for k in PRUNING})
    check_repair(choices, repair=parts["repair"], schedule=parts["schedule"])
    parts["criterion"].check_phase(recipe.pruning)
    parts["schedule"].check_phase(recipe.pruning)
    if baseline is not None:
        require_files(baseline, parts["dataset"])
    return {**parts, "model": component("model", plain["model"], GROUPS["model"])}


#: section with values for interpolation only; records contain the interpolated values instead
VARIABLES = "variables"
#: option groups in the order in which they are read; the model's module imports torch
GROUPS: dict[str, type] = {
    "dataset": DatasetSpec,
    "criterion": Criterion,
    "budget": Budget,
    "repair": Repair,
    "schedule": Schedule,
    "tracker": Tracker,
    "model": ModelSpec,
}
