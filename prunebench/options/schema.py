"""Builds a frozen dataclass, whose fields are the schema, from plain values that it checks."""

from __future__ import annotations

import copy
from dataclasses import fields, is_dataclass
from functools import cache
from math import isfinite
from typing import Any, TypeVar, cast, get_type_hints

from omegaconf import MISSING, DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from prunebench.errors import ConfigError, first_line, require, unknown, wrong_type
from prunebench.options.patterns import as_names

Part = TypeVar("Part")


@cache
def hints_of(schema: type) -> dict[str, Any]:
    """Returns the types of a dataclass's fields."""
    return get_type_hints(schema)


@cache
def fields_of(schema: type) -> Any:
    """Returns a dataclass as a config with empty fields, to merge values into a copy of it."""
    return OmegaConf.structured(schema)


def section(name: str, values: dict[str, Any], schema: type[Part]) -> Part:
    """Builds the frozen dataclass `schema` from plain `values`.

    Raises:
        ConfigError: a key is unknown or missing, or a value has the wrong type or range.
    """
    check_keys(name, values, schema)
    return build(name, values, schema)


def build(name: str, values: dict[str, Any], schema: type[Part]) -> Part:
    """Builds `schema` from values whose keys are known.

    Raises:
        ConfigError: a key is missing, or a value has the wrong type or range.
    """
    hints = hints_of(cast(type, schema))
    nested = {key: hints[key] for key in values if is_dataclass(hints[key])}
    if nested:  # OmegaConf cannot fill a frozen dataclass that sits in another
        parts = {key: section(f"{name}.{key}", values[key], kind) for key, kind in nested.items()}
        missing = [key for key in hints if key not in parts]
        require(not missing, f"{name} lacks {', '.join(missing)}")
    else:
        fitting = typed(name, values, schema)
        unset = [key for key, value in values.items() if value == MISSING]  # even with a default
        try:
            for key in [*unset, *OmegaConf.missing_keys(fitting)]:
                raise ConfigError(f"{name}.{key} is not set; give {name}.{key}=...")
            parts = cast(dict[str, Any], OmegaConf.to_container(fitting, resolve=True))
        except OmegaConfBaseException as error:  # a value refers to another, which there is not
            raise ConfigError(f"{name}.{error.full_key}: {first_line(error)}") from error
        check_finite(name, parts)
    try:
        return schema(**parts)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error


def typed(name: str, values: dict[str, Any], schema: type) -> DictConfig:
    """Returns `values` as a config with the fields of `schema`.

    Raises:
        ConfigError: a value is not of its field's type; the message names the first such.
    """
    hints = hints_of(schema)
    values = {key: as_names(f"{name}.{key}", value, hints[key]) for key, value in values.items()}
    together = merged(values, schema)  # one config per value is slow, and only finds the wrong one
    for key, value in values.items():
        entries = value.values() if isinstance(value, dict) else value
        fits = "Any" in str(hints[key]) or not (  # nested containers, which OmegaConf lets pass
            isinstance(value, list | dict) and any(isinstance(e, list | dict) for e in entries)
        )
        fits = fits and (together is not None or merged({key: value}, schema) is not None)
        if not fits:
            raise ConfigError(wrong_type(f"{name}.{key}", value, hints[key]))
    assert together is not None  # values that fit one by one fit together
    return together


def merged(values: dict[str, Any], schema: type) -> DictConfig | None:
    """Returns `values` as a config with the fields of `schema`; None if OmegaConf rejects them."""
    found: DictConfig = copy.deepcopy(fields_of(schema))
    try:
        with flag_override(found, "readonly", False):
            for key, value in values.items():  # in half the time that OmegaConf takes to merge
                found[key] = value
    except OmegaConfBaseException:
        return None
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
        if key not in valid:  # only now, since to look for what was meant is slow
            raise ConfigError(unknown(f"{name}.{key}", valid))
        if is_dataclass(hints[key]):
            check_keys(f"{name}.{key}", value, hints[key])
