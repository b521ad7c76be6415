"""From a YAML section to the frozen dataclass that its ``_target_`` names.

The dataclass's fields are the schema: keys, types and ranges are checked here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import fields, is_dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from inspect import isabstract
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from prunebench.aliases import require_short
from prunebench.errors import ConfigError, require, unknown, wrong_type
from prunebench.patterns import as_names

Part = TypeVar("Part")
#: groups whose options choose those of others, for which a run has no part of its own
PRESETS = ("method", "experiment")


def conf_dir() -> Path:
    """Returns the absolute folder of the shipped YAMLs: inside the wheel, or beside the package."""
    here = Path(__file__).resolve().parent
    packaged = here / "conf"
    return packaged if packaged.is_dir() else here.parent / "conf"


def find_option(group: str, name: str, folders: Sequence[Path]) -> Path | None:
    """Returns the YAML of an option in the first of `folders` that has it; None if none has."""
    paths = [folder / group / f"{name}.yaml" for folder in folders]
    return next((path for path in paths if path.is_file()), None)


def option_groups(folders: Sequence[Path]) -> set[str]:
    """Returns the groups of which `folders` hold options, ``recipe/phase`` among them."""
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
    """Returns what an option's YAML holds, with what it interpolates left as it is written."""
    return deepcopy(_read_option(path, path.stat().st_mtime_ns))


@cache
def _read_option(path: Path, _changed: int) -> dict[str, Any]:
    """The same, read once for as long as the file, last changed then, stays as it is."""
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


def option(group: str, name: str, base: type, **changes: Any) -> Any:
    """Builds a shipped option of `group` with some of its keys changed.

    Raises:
        ConfigError: the option or a key is not known, or a value does not fit.
    """
    folder = conf_dir() / group
    path = folder / f"{name}.yaml"
    if not path.exists():
        raise ConfigError(unknown(f"{group}={name}", [file.stem for file in folder.glob("*.yaml")]))
    values = OmegaConf.to_container(OmegaConf.create(read_option(path)), resolve=True)
    assert isinstance(values, dict)
    return component(group, {str(k): v for k, v in {**values, **changes}.items()}, base)


def option_classes(group: str) -> dict[str, str]:
    """Returns class name -> full name, of all shipped options of `group`."""
    paths = (conf_dir() / group).glob("*.yaml")
    targets = [str(read_option(path)["_target_"]) for path in paths]
    return {target.rpartition(".")[2]: target for target in targets}


def option_class(group: str, name: str) -> Any:
    """Returns the class `name` of a shipped option of `group`.

    Raises:
        AttributeError: there is none, which is what modules that ask on behalf of users say.
    """
    found = option_classes(group) if name[:1].isupper() else {}
    if name not in found:
        hint = f"; classes: {', '.join(sorted(found))}" if found else ""
        raise AttributeError(f"{group} has no '{name}'{hint}")
    return getattr(import_module(found[name].rpartition(".")[0]), name)


def component(group: str, values: dict[str, Any], base: type[Part], *, source: str = "") -> Part:
    """Builds the option of `group` whose class ``_target_`` names.

    Args:
        group: of the option.
        values: of its fields, and ``_target_``.
        base: of the class.
        source: the file that the values come from, if a stranger may have written it: it imports
            no module that is not `trusted`.

    Raises:
        ConfigError: ``_target_`` is missing or names no concrete dataclass derived from `base`,
            or the values do not fit its fields.
    """
    require(isinstance(values, dict), f"{group} must name an option, got '{values}'")
    target = str(values.get("_target_", ""))
    require("." in target, f"{group} has no _target_ that names its class")
    if source:
        require_trusted(source, target)
    found = imported(f"{group}._target_", target)
    fits = isinstance(found, type) and issubclass(found, base) and is_dataclass(found)
    require(fits and not isabstract(found), f"{group}._target_: {target} is not a {base.__name__}")
    option: Part = section(group, {k: v for k, v in values.items() if k != "_target_"}, found)
    return option


def imported(key: str, target: str) -> Any:
    """Returns what `target`, the value of `key`, names: ``module.name``; the module is imported.

    Raises:
        ConfigError: there is none, or its module cannot be imported.
    """
    module, _, name = target.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{key}: cannot find {target} ({error})") from error
    except Exception as error:
        kind = type(error).__name__
        raise ConfigError(f"{key}: cannot import {target} ({kind}: {error})") from error


def require_trusted(source: str, target: str) -> None:
    """Raises ConfigError unless the class `target` is one that the file `source` may name."""
    module = target.rpartition(".")[0]
    require(
        trusted(module),
        f"{source} names the class {target}; if you trust it, import {module} first or put "
        "its folder on PYTHONPATH",
    )


def trusted(module: str) -> bool:
    """Whether a file may name `module`, whose import runs its code.

    That is one of prunebench, one that is imported already, or one on PYTHONPATH.
    """
    top = module.partition(".")[0]
    if top == "prunebench" or module in sys.modules:
        return True
    own = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    return any(holds(Path(folder), top) for folder in own)


def holds(folder: Path, module: str) -> bool:
    """Whether `folder` has the module or package `module` right in it."""
    return any((folder / name).exists() for name in (module, f"{module}.py"))


def make_importable(target: str, folders: Sequence[Path]) -> None:
    """Puts the first of `folders` with the module of `target` on Python's path, unless one is.

    It comes last there, and only if needed, so that nothing in it takes another module's place.
    """
    top = target.partition(".")[0]
    if top and find_spec(top) is None:
        sys.path += [str(folder.resolve()) for folder in folders if holds(folder, top)][:1]


@cache
def hints_of(schema: type) -> dict[str, Any]:
    """Returns the types of a dataclass's fields."""
    return get_type_hints(schema)


@cache
def fields_of(schema: type) -> Any:
    """Returns the empty fields of a dataclass, to merge values into a copy of them."""
    return OmegaConf.structured(schema)


def section(name: str, values: dict[str, Any], schema: type[Part]) -> Part:
    """Builds the frozen dataclass `schema` from plain `values`.

    Raises:
        ConfigError: a key is unknown or missing, or a value has the wrong type or range.
    """
    check_keys(name, values, schema)
    return build(name, values, schema)


def build(name: str, values: dict[str, Any], schema: type[Part]) -> Part:
    """Builds `schema` from values whose keys are known; types and ranges are checked here."""
    hints = hints_of(cast(type, schema))
    nested = {key: hints[key] for key in values if is_dataclass(hints[key])}
    if nested:  # OmegaConf cannot fill a frozen dataclass that sits in another
        parts = {key: section(f"{name}.{key}", values[key], kind) for key, kind in nested.items()}
        missing = [key for key in hints if key not in parts]
        require(not missing, f"{name} lacks {', '.join(missing)}")
    else:
        fitting = typed(name, values, schema)
        for key in OmegaConf.missing_keys(fitting):
            raise ConfigError(f"{name}.{key} is not set; give {name}.{key}=...")
        check_finite(name, OmegaConf.to_container(fitting))
    try:
        built: object = schema(**parts) if nested else OmegaConf.to_object(fitting)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    assert isinstance(built, schema)
    return built


def typed(name: str, values: dict[str, Any], schema: type) -> DictConfig:
    """Returns `values` as fields of `schema`.

    Raises:
        ConfigError: one of them, the first of which is told, is not of its field's type.
    """
    hints = hints_of(schema)
    values = {key: as_names(f"{name}.{key}", value, hints[key]) for key, value in values.items()}
    together = merged(values, schema)  # one by one takes long, and tells only which it was
    for key, value in values.items():
        entries = value.values() if isinstance(value, dict) else value
        fits = "Any" in str(hints[key]) or not (  # which OmegaConf lets pass
            isinstance(value, list | dict) and any(isinstance(e, list | dict) for e in entries)
        )
        fits = fits and (together is not None or merged({key: value}, schema) is not None)
        if not fits:
            raise ConfigError(wrong_type(f"{name}.{key}", value, hints[key]))
    assert together is not None  # values that fit one by one fit together
    return together


def merged(values: dict[str, Any], schema: type) -> DictConfig | None:
    """Returns `values` as fields of `schema`; None where OmegaConf does not take them."""
    try:
        found = OmegaConf.merge(fields_of(schema), values)
    except OmegaConfBaseException:
        return None
    assert isinstance(found, DictConfig)
    return found


def check_finite(name: str, value: object) -> None:
    """Raises ConfigError if `value` is, or holds, a number that is not finite."""
    if isinstance(value, dict):
        for key, inner in value.items():
            check_finite(f"{name}.{key}", inner)
    elif isinstance(value, list):
        for inner in value:
            check_finite(name, inner)
    elif isinstance(value, float):
        require(isfinite(value), f"{name} must be finite, got {value}")


def check_keys(name: str, values: object, schema: type) -> None:
    """Raises ConfigError for a key of `values`, nested ones included, that `schema` lacks."""
    require(isinstance(values, dict), f"{name} must hold keys and values, got '{values}'")
    assert isinstance(values, dict)
    assert is_dataclass(schema)
    hints = hints_of(schema)
    valid = [field.name for field in fields(schema)]
    for key, value in values.items():
        if key not in valid:  # to look for what was meant takes long
            raise ConfigError(unknown(f"{name}.{key}", valid))
        if is_dataclass(hints[key]):
            check_keys(f"{name}.{key}", value, hints[key])
