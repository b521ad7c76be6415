"""Checks which methods may be combined with which experiments, the two kinds of presets.

An experiment sets model, data and recipe; it names a method, or sets how to prune itself. If it
sets more than a method's name, those settings would be mixed with another method typed beside it:
such a pair is refused, with a suggestion what to type instead.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from prunebench.errors import require
from prunebench.options.files import PRESETS, choices_of, find_option, read_option

#: groups that define how to prune; a method chooses all of them
HOW = ("criterion", "budget", "repair", "schedule")
#: groups that define what is pruned, and for how long it trains
WHAT = ("model", "dataset", "recipe")


def check_method(choices: Mapping[str, str], folders: Sequence[Path]) -> None:
    """Raises ConfigError if the typed method cannot replace the experiment's own way to prune."""
    experiment, method = choices.get("experiment", "None"), choices.get("method", "None")
    path = find_option("experiment", experiment, folders)
    if path is None or method == "None":
        return
    values = read_option(path)
    chosen = choices_of(values)
    if method == chosen.get("method", "None"):
        return
    fixed = [group for group in HOW if group in {*values, *chosen, *swept(values)}]
    typed = " ".join([*_typed(values, chosen), f"method={method}"])
    require(
        not fixed,
        f"experiment={experiment} already fixes how to prune ({', '.join(fixed)}), which "
        f"method={method} cannot replace; in place of both, type: {typed}",
    )


def setter(key: str, choices: Mapping[str, str], folders: Sequence[Path]) -> str:
    """Returns the method or experiment in `choices` that sets the dotted `key`; "" if none does."""
    for group in PRESETS:
        path = find_option(group, choices.get(group, ""), folders)
        value: Any = read_option(path) if path else None
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            return f"{group}={choices[group]}"
    return ""


def misplaced(
    choices: Mapping[str, str], folders: Sequence[Path]
) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Yields settings that a preset makes for an option which is not the chosen one.

    Budgets share their keys (keep, floor, scope): a setting for one holds for all that know the
    key. In the other groups one key may mean two things (the estimators of CAC and AOFP), unless
    both options have the same class (ThiNet's two searches).

    Yields:
        The preset, the group, the key, and the values in the chosen option's own YAML.
    """
    meant: dict[str, str] = {}
    for preset in PRESETS:
        path = find_option(preset, choices.get(preset, ""), folders)
        values = read_option(path) if path else {}
        meant |= choices_of(values)
        for group in HOW:
            chosen = find_option(group, choices.get(group, ""), folders)
            if chosen is None or meant.get(group, choices[group]) == choices[group]:
                continue
            own, for_ = read_option(chosen), find_option(group, meant[group], folders)
            alike = for_ is not None and read_option(for_).get("_target_") == own.get("_target_")
            for key in values.get(group, {}):
                if key not in own or not (alike or group == "budget"):
                    yield f"{preset}={choices[preset]}", group, key, own


def leave_out(
    config: DictConfig, choices: Mapping[str, str], folders: Sequence[Path], typed: Sequence[str]
) -> Iterator[str]:
    """Resets each setting that is `misplaced` to the chosen option's own, unless it was typed.

    Yields:
        A sentence on each setting left out.
    """
    for preset, group, key, own in misplaced(choices, folders):
        if not any(word.startswith(f"{group}.{key}=") for word in typed):
            with open_dict(config):
                del config[group][key]
                config[group].update({key: own[key]} if key in own else {})
            yield f"{group}.{key} of {preset} does not apply to {choices[group]}"


def swept(values: Mapping[str, Any]) -> set[str]:
    """Returns the groups over which an experiment sweeps by default."""
    found = values.get("hydra", {}).get("sweeper", {}).get("params", {})
    return {str(group) for group in found}


def _typed(values: Mapping[str, Any], chosen: Mapping[str, str]) -> Iterator[str]:
    """Yields, as one would type it, what an experiment prunes and how long it trains."""
    for group in WHAT:
        if group in chosen:
            yield f"{group}={chosen[group]}"
        yield from _keys(group, values.get(group, {}))


def _keys(prefix: str, value: object) -> Iterator[str]:
    """Yields ``key=value`` for every leaf of nested `value`."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _keys(f"{prefix}.{key}", inner)
    else:
        shown = {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))
        yield shlex.quote(f"{prefix}={shown}".replace(" ", ""))
