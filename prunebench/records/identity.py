"""Tells which settings of a run decide its result, digests them, and names runs in tables."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from prunebench.errors import DataError
from prunebench.options.files import conf_dir
from prunebench.records import Failure, Origin, Report
from prunebench.records.jsonfile import digest
from prunebench.records.unfinished import Unfinished

#: a run in any state
Record = Report | Failure | Unfinished

#: keys of the config that do not change the result
NOT_DECIDING = (
    "name",
    "tracker",
    "run.resume",
    "run.dry_run",
    "run.outputs",
    "run.compile",
    "run.checkpoint_seconds",
    "run.sensitivity",
    "baseline.store",
    "criterion.recalibrate",  # affects validation only, which selects nothing while gates are on
    "dataset.root",
    "dataset.download",
    "dataset.workers",
    "dataset.prefetch",
    "dataset.allow_damaged",
)
#: last word of keys that older configs lack -> the value that has the same effect as its absence
LATER: dict[str, Any] = {
    **{"accumulate": 1, "schedule_by": None, "decay_of": {}, "ema": 0.0},
    **{"sync_batchnorm": False},
    **{"head": None, "head_scale": None, "head_margin": None},
    **{
        "class_balanced": False,
        "new_images": False,
        "fit": "shorter",
        "augment": "part",
        "decode": "cpu",
    },
    **{"rounding": "kept", "strict": False, "zero_first": False, "tied": False},
    **{"norm_scale": None, "above": 1.0, "shuffle": "rotate"},
    **{"evidence": None, "holdout": 0.0, "score_samples": None, "bias_rate": 1.0, "hidden": None},
    **{"l1_on": "all", "hinge_over": "group", "augmented": False},
}
#: criterion -> group -> option that leaves out a part of its method, and words for its absence
WHOLE = {
    name: {"schedule": ("oneshot", "one-shot"), "repair": ("none", "no least squares")}
    for name in ("thinet", "thinet_tpami")
}
#: model option -> its field that names the network
NAMED_BY = {"import": "target", "timm": "name"}
#: digits of a file's sha256 that stand for the file in settings
SHOWN = 12
#: options that a method's name leaves out
PLAIN_OPTIONS = {"none", "null", "None", "", "oneshot"}


def contents(files: Mapping[str, Path]) -> dict[str, str]:
    """Returns key -> sha256 in hex of its file; for a folder, that of `listing`.

    Raises:
        DataError: a file cannot be read.
    """
    found = {}
    for key, path in files.items():
        try:
            if path.is_dir():
                found[key] = listing(path)
                continue
            with path.open("rb") as file:
                found[key] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"{key}: cannot read {path} ({error.strerror})") from None
    return found


def listing(folder: Path) -> str:
    """Returns the sha256, in hex, of the names, sizes and times of all files in `folder`.

    Reading a million images at every start would take too long. Hidden files do not count; a copy
    must keep its times (cp -a, rsync -a, tar) to be the same.
    """
    digest = hashlib.sha256()
    for path, _, names in sorted_walk(folder):
        below = os.path.relpath(path, folder)
        for name in names:
            found = os.stat(os.path.join(path, name))
            line = f"{below}/{name} {found.st_size} {found.st_mtime_ns}\n"
            digest.update(os.fsencode(line))
    return digest.hexdigest()


def sorted_walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yields what `os.walk` does, sorted and without hidden files and folders."""
    for path, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield path, folders, sorted(name for name in names if not name.startswith("."))


def deciding(
    config: Mapping[str, Any], contents: Mapping[str, str], prefix: str = ""
) -> dict[str, Any]:
    """Returns the part of a resolved config that decides the result.

    Args:
        config: the whole, or its sections at `prefix`.
        contents: dotted key -> digest of the file named there, which replaces the name: another
            file under the same name is another input, the same file elsewhere is not.
        prefix: dotted key of `config` itself, ending in a dot; "" for the whole.
    """
    return {
        key: deciding(value, contents, f"{prefix}{key}.")
        if isinstance(value, Mapping)
        else contents.get(f"{prefix}{key}", value)
        for key, value in config.items()
        if (f"{prefix}{key}" in contents or f"{prefix}{key}" not in NOT_DECIDING)
        and not (key in LATER and LATER[key] == value)
    }


def setting(record: Record) -> str:
    """Returns a digest of all that decides the result except the seed."""
    return digest({"config": settings(record), "names": names(record)})[:16]


def settings(record: Record) -> dict[str, Any]:
    """Returns dotted key -> value of all that decides the result except the seed.

    Files are represented by their digests. A structure that another run found is represented by
    that run's settings, so that structures found with several seeds are one setting.
    """
    held = {key: f"sha256 {value[:SHOWN]}" for key, value in (record.contents or {}).items()}
    origin = origin_of(record)
    if origin is not None:
        held["model.report"] = f"{origin.method} ({origin.setting})"
    flat = dict(dotted(deciding(record.config, held)))
    flat.pop("run.seed", None)
    if flat.get("budget.allocation") == "uniform" or not flat.get("budget.floor_share"):
        flat.pop("budget.floor_share", None)  # has no effect here, and earlier reports lack it
    return flat


def dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted key, value) for every leaf of nested `values`."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def names(record: Record) -> tuple[str, str, str]:
    """Returns the names of model, dataset and method, as tables show them."""
    choices = {key: str(value) for key, value in record.choices.items()}
    origin, untouched = origin_of(record), whole(record)
    # Training a found structure cuts nothing on purpose; its criterion means nothing then.
    parts = ["not pruned"] if untouched and origin else _method(choices)
    recipe = choices.get("recipe", "")
    if recipe not in PLAIN_OPTIONS:
        parts.append(f"recipe {recipe}")
    method = ", ".join(parts) or "?"
    if untouched and origin is None:
        method += "; not pruned"
    model = choices.get("model", "?")
    if model in NAMED_BY:
        model = str(record.config["model"][NAMED_BY[model]]).rpartition(".")[2]
    if origin is not None:
        how = "found" if record.config["model"]["macs"] is None else "re-designed"
        model = f"{origin.model}, {how}"
    return model, choices.get("dataset", "?"), method


def _method(choices: Mapping[str, str]) -> list[str]:
    """Returns the parts of a method's name: the preset, and the options that differ from it.

    If its criterion was replaced, all options are named. Those in `PLAIN_OPTIONS` are left out.
    """
    groups = ("criterion", "budget", "repair", "schedule")
    method = choices.get("method", "")
    preset = preset_of(method)
    if preset and preset["criterion"] == choices.get("criterion"):
        return [method, *(f"{g}={choices[g]}" for g in groups[1:] if choices.get(g) != preset[g])]
    named = ("" if preset else method, *(choices.get(group, "") for group in groups))
    lacks = [
        words
        for group, (option, words) in WHOLE.get(choices.get("criterion", ""), {}).items()
        if choices.get(group) == option
    ]
    return [*dict.fromkeys(part for part in named if part not in PLAIN_OPTIONS), *lacks]


@cache
def preset_of(method: str) -> dict[str, str]:
    """Returns group -> option of a shipped preset; empty if `method` is not one."""
    path = conf_dir() / "method" / f"{method}.yaml"
    if method in PLAIN_OPTIONS or not path.is_file():
        return {}
    import yaml

    chosen = {}
    for line in yaml.safe_load(path.read_text(encoding="utf-8"))["defaults"]:
        for key, option in line.items():
            chosen[key.removeprefix("override /")] = str(option)
    return chosen


def whole(record: Record) -> bool:
    """Returns whether a finished run cut nothing, whatever its criterion and budget."""
    if not isinstance(record, Report):
        return False
    return bool(record.layers) and all(
        row.params_before == row.params_after for row in record.layers
    )


def control(record: Record) -> str:
    """Returns which kind of control, to be beaten by methods, a run is; "" for a method."""
    origin = origin_of(record)
    if origin is not None:
        return "found structure" if record.config["model"]["macs"] is None else ""
    if whole(record) or record.choices.get("schedule") == "never":
        return "dense"
    random = record.choices.get("criterion") == "random"
    if record.choices.get("schedule") == "redraw":
        return "uniform width" if random else "found structure"
    return "random channels" if random else ""


def origin_of(record: Record) -> Origin | None:
    """Returns the run that found the structure of this one; None if there is none."""
    return record.origin if isinstance(record, Report) else None


def as_origin(report: Report) -> Origin:
    """Returns the `Origin` of runs that train the structure of `report`."""
    model, _, method = names(report)
    return Origin(model=model, method=method, setting=setting(report), seed=report.seed)
