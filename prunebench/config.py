"""From the composed configuration to a typed, checked Run: the only reader of a DictConfig.

Nothing here imports torch but the model option's own module, which is read last, so that every
mistake elsewhere is answered at once.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields, is_dataclass
from importlib import import_module
from inspect import isabstract
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from prunebench.budgets import Budget
from prunebench.combinations import (
    PRUNING,
    check_combination,
    check_processes,
    check_pruning_phase,
)
from prunebench.criteria import Criterion
from prunebench.datasets import DatasetSpec
from prunebench.errors import ConfigError, misfit, require, unknown
from prunebench.models import ModelSpec
from prunebench.repairs import Repair
from prunebench.schedules import Schedule
from prunebench.tracking import Tracker
from prunebench.training.recipe import Recipe

Part = TypeVar("Part")

#: settings that say how a run is carried out, not what it computes
NOT_PART_OF_THE_RESULT = ("resume", "dry_run", "outputs", "checkpoint_seconds")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The run-wide scalars, section ``run`` of the configuration."""

    seed: int
    device: str
    threads: int | None
    processes: int
    resume: bool
    dry_run: bool
    outputs: str
    checkpoint_seconds: float
    latency_batch: int

    def __post_init__(self) -> None:
        """Checks ranges."""
        require(self.seed >= 0, f"seed must not be negative, got {self.seed}")
        require(
            self.threads is None or self.threads >= 1,
            f"threads must be null or at least 1, got {self.threads}",
        )
        require(self.processes >= 1, f"processes must be at least 1, got {self.processes}")
        kind, _, index = self.device.partition(":")
        require(
            kind in ("auto", "cpu", "cuda") and (not index or (kind == "cuda" and index.isdigit())),
            f"device must be auto, cpu, cuda or cuda:N, got '{self.device}'",
        )
        require(
            self.checkpoint_seconds >= 0,
            f"checkpoint_seconds must not be negative, got {self.checkpoint_seconds}",
        )
        require(
            self.latency_batch >= 1, f"latency_batch must be at least 1, got {self.latency_batch}"
        )


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Where the dense network comes from, section ``baseline`` of the configuration.

    Attributes:
        checkpoint: a file with a state dict, instead of training.
        store: whether trained baselines are kept and used again.
    """

    checkpoint: str | None
    store: bool

    @property
    def missing(self) -> str:
        """Whether the file is not there."""
        if self.checkpoint is None or Path(self.checkpoint).is_file():
            return ""
        return f"baseline.checkpoint: there is no file {self.checkpoint}"


@dataclass(frozen=True)
class Run:
    """One run, with everything built and checked before anything is trained.

    Attributes:
        config: the resolved configuration as plain values, for the report.
        choices: group -> chosen option.
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

    @property
    def digest(self) -> str:
        """Sha256 of all that decides the result; equal for a run and its resumption."""
        config = {
            key: value for key, value in self.config.items() if key not in ("tracker", "name")
        }
        config["run"] = {
            key: value
            for key, value in self.config["run"].items()
            if key not in NOT_PART_OF_THE_RESULT
        }
        return digest(config)


def digest(values: object) -> str:
    """Sha256 in hex over the canonical JSON of plain `values`."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def check_name(name: object) -> None:
    """Raises ConfigError unless `name` can be a folder's below ``run.outputs``."""
    require(
        isinstance(name, str | int | float) and ".." not in str(name).split("/"),
        f"name must be a text and not lead out of its folder by .., got '{name}'",
    )


def require_files(*parts: Baseline | DatasetSpec | ModelSpec) -> None:
    """Raises ConfigError for the first of `parts` that names a file which is not there."""
    for part in parts:
        require(not part.missing, part.missing)


def load(cfg: DictConfig, choices: dict[str, str], *, files: bool = False) -> Run:
    """Returns the Run that `cfg` describes.

    Args:
        cfg: as composed.
        choices: group -> chosen option.
        files: whether the files that the run will read must be there.

    Raises:
        ConfigError: a key is unknown or missing, a value has the wrong type or range, the
            options do not go together, or a file is not there.
    """
    known = {"name", "run", "baseline", *GROUPS, "recipe"}
    for key in cfg:
        require(str(key) in known, unknown(str(key), known))
    try:
        config = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from error
    assert isinstance(config, dict)
    for key in sorted(known):
        require(config.get(key) is not None, f"{key} must not be null")
    plain = {str(key): value for key, value in config.items()}
    check_name(plain["name"])
    settings = section("run", plain["run"], Settings)
    baseline = section("baseline", plain["baseline"], Baseline)
    recipe = section("recipe", plain["recipe"], Recipe)
    check_processes(settings.processes, recipe)
    parts: dict[str, Any] = {}
    for group, base in GROUPS.items():
        if group == "model":
            check_combination(choices, **{k: parts[k] for k in PRUNING})
            check_pruning_phase(recipe.pruning, parts["criterion"], parts["schedule"])
            if files:
                require_files(baseline, parts["dataset"])
        parts[group] = component(group, plain[group], base)
    if files:
        require_files(parts["model"])
    return Run(
        settings=settings,
        baseline=baseline,
        recipe=recipe,
        name=str(plain["name"]),
        config=plain,
        choices=choices,
        **parts,
    )


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


def component(group: str, values: dict[str, Any], base: type[Part]) -> Part:
    """Builds the option of `group` whose class ``_target_`` names.

    Raises:
        ConfigError: ``_target_`` is missing or names no concrete dataclass derived from `base`,
            or the values do not fit its fields.
    """
    require(isinstance(values, dict), f"{group} must name an option, got '{values}'")
    target = str(values.get("_target_", ""))
    module_name, _, class_name = target.rpartition(".")
    require(bool(module_name), f"{group} has no _target_ that names its class")
    try:
        found: Any = getattr(import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{group}._target_: cannot find {target} ({error})") from error
    fits = isinstance(found, type) and issubclass(found, base) and is_dataclass(found)
    require(fits and not isabstract(found), f"{group}._target_: {target} is not a {base.__name__}")
    option: Part = section(group, {k: v for k, v in values.items() if k != "_target_"}, found)
    return option


def section(name: str, values: dict[str, Any], schema: type[Part]) -> Part:
    """Builds the frozen dataclass `schema` from plain `values`.

    Raises:
        ConfigError: a key is unknown or missing, or a value has the wrong type or range.
    """
    check_keys(name, values, schema)
    return build(name, values, schema)


def build(name: str, values: dict[str, Any], schema: type[Part]) -> Part:
    """Builds `schema` from values whose keys are known; types and ranges are checked here."""
    hints = get_type_hints(schema)
    nested = {key: hints[key] for key in values if is_dataclass(hints[key])}
    if nested:  # OmegaConf cannot fill a frozen dataclass that sits in another
        parts = {key: section(f"{name}.{key}", values[key], kind) for key, kind in nested.items()}
        missing = [key for key in hints if key not in parts]
        require(not missing, f"{name} lacks {', '.join(missing)}")
    else:
        check_types(name, values, schema)
        merged = OmegaConf.merge(OmegaConf.structured(schema), values)
        for key in OmegaConf.missing_keys(merged):
            raise ConfigError(f"{name}.{key} is not set; give {name}.{key}=...")
    try:
        built: object = schema(**parts) if nested else OmegaConf.to_object(merged)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    assert isinstance(built, schema)
    return built


def check_types(name: str, values: dict[str, Any], schema: type) -> None:
    """Raises ConfigError for the first of `values` that is not of its field's type."""
    hints = get_type_hints(schema)
    for key, value in values.items():
        entries = value.values() if isinstance(value, dict) else value
        fits = not (  # which OmegaConf lets pass
            isinstance(value, list | dict) and any(isinstance(e, list | dict) for e in entries)
        )
        try:
            OmegaConf.merge(OmegaConf.structured(schema), {key: value})
        except OmegaConfBaseException:
            fits = False
        require(fits, misfit(f"{name}.{key}", value, hints[key]))


def check_keys(name: str, values: object, schema: type) -> None:
    """Raises ConfigError for a key of `values`, nested ones included, that `schema` lacks."""
    require(isinstance(values, dict), f"{name} must hold keys and values, got '{values}'")
    assert isinstance(values, dict)
    assert is_dataclass(schema)
    hints = get_type_hints(schema)
    valid = [field.name for field in fields(schema)]
    for key, value in values.items():
        require(key in valid, unknown(f"{name}.{key}", valid))
        if is_dataclass(hints[key]):
            check_keys(f"{name}.{key}", value, hints[key])
