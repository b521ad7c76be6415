"""Builds options: from a name or YAML section to the frozen dataclass that ``_target_`` names.

`files` finds and reads the YAMLs, `code` imports the class, `schema` checks values against its
fields; `aliases` refuses YAML that unfolds too far, `patterns` matches names of groups.
"""

from __future__ import annotations

from dataclasses import is_dataclass
from importlib import import_module
from inspect import isabstract
from typing import Any, TypeVar

from omegaconf import OmegaConf

from prunebench.errors import ConfigError, require, unknown
from prunebench.options.code import imported, require_trusted
from prunebench.options.files import conf_dir, read_option
from prunebench.options.schema import section

Part = TypeVar("Part")


def option(group: str, name: str, base: type[Part], **changes: Any) -> Part:
    """Builds a shipped option of `group` with some of its keys changed.

    Raises:
        ConfigError: the option or a key is unknown, or a value does not fit.
    """
    folder = conf_dir() / group
    path = folder / f"{name}.yaml"
    if not path.exists():
        raise ConfigError(unknown(f"{group}={name}", [file.stem for file in folder.glob("*.yaml")]))
    values = OmegaConf.to_container(OmegaConf.create(read_option(path)), resolve=True)
    assert isinstance(values, dict)
    return component(group, {str(k): v for k, v in {**values, **changes}.items()}, base)


def option_classes(group: str) -> dict[str, str]:
    """Returns class name -> full name for all shipped options of `group`."""
    paths = (conf_dir() / group).glob("*.yaml")
    targets = [str(read_option(path)["_target_"]) for path in paths]
    return {target.rpartition(".")[2]: target for target in targets}


def option_class(group: str, name: str) -> Any:
    """Returns the class called `name` of a shipped option of `group`.

    Raises:
        AttributeError: there is none; modules call this from ``__getattr__``, which must raise it.
    """
    found = option_classes(group) if name[:1].isupper() else {}
    if name not in found:
        hint = f"; classes: {', '.join(sorted(found))}" if found else ""
        raise AttributeError(f"{group} has no '{name}'{hint}")
    return getattr(import_module(found[name].rpartition(".")[0]), name)


def component(group: str, values: dict[str, Any], base: type[Part], *, source: str = "") -> Part:
    """Builds the option of `group` whose class ``_target_`` names.

    Args:
        group: group of the option.
        values: ``_target_`` and the values of its fields.
        base: class that the option must derive from.
        source: file of the values, if a stranger may have written it: then only `trusted` modules
            are imported.

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
    built: Part = section(group, {k: v for k, v in values.items() if k != "_target_"}, found)
    return built
