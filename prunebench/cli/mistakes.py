"""Explains errors of Hydra, OmegaConf, YAML and the system to the user in one line."""

from __future__ import annotations

import errno
import os
import shlex
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import NoReturn

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from prunebench.config.launched import launched
from prunebench.errors import unknown
from prunebench.options.files import PRESETS, conf_dir, find_option, option_groups

#: error codes of a file system that is full, and of one that refuses to write
FULL = (errno.ENOSPC, errno.EDQUOT)
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
#: Hydra plugin -> what to install
PLUGINS = {
    "submitit": "prunebench[slurm]",
    "ray": "prunebench[ray]",
    "optuna": "prunebench[optuna]",
    "joblib": "prunebench[joblib]",
}
#: exceptions that launchers (joblib, submitit, Ray) raise when a job was killed
LOST = ("TerminatedWorkerError", "UncompletedJobError", "FailedJobError", "WorkerCrashedError")


def fail(message: str) -> NoReturn:
    """Prints `message` as one line and exits with 2."""
    say(message)
    raise SystemExit(2)


def say(message: str) -> None:
    """Prints `message` as one line; one process of several names its rank."""
    place = launched()
    who = f"prunebench, process {place.rank}" if place and place.rank else "prunebench"
    sys.stderr.write(f"{who}: {' '.join(message.split())}\n")


def explain(error: Exception) -> str:
    """Returns one line on what `error` means for the user."""
    if isinstance(error, MissingConfigException):
        return _missing_option(error)
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    if str(error).startswith("Ambiguous value for argument"):
        word = str(error).partition("'")[2].partition("'")[0]
        key, _, value = word.partition("=")
        return f"{word}: several values are a sweep, with -m; a list is typed {key}=[{value}]"
    _, is_merge, typed = str(error).partition("Error merging override ")
    if is_merge:
        key, _, value = typed.partition("=")
        held = f"a list: {key}=[...]" if value.startswith("{") else "keys and values"
        return f"{typed} does not fit: {key} holds {held}"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OmegaConfBaseException) and isinstance(cause.parent_node, DictConfig):
            valid = {str(key) for key in cause.parent_node} - {"hydra", "_target_"}
            if "not in struct" in str(cause):
                key = str(cause.full_key)
                section, _, own = key.rpartition(".")
                if not cause.parent_node:  # an empty section, whose keys are names the user chooses
                    typed = f"'+{section}={{{own}: ...}}'"
                    return f"{section} holds nothing yet; with + it does: {typed}"
                return unknown(key, valid if "." in key else {*valid, *PRESETS})
        cause = cause.__cause__
    return str(error)


def explain_os(error: OSError, *, begun: bool) -> str:
    """Returns which file or folder the operating system refuses, and what to do.

    Before a job has `begun`, only Hydra creates folders.
    """
    if error.errno == errno.ENAMETOOLONG:
        return "name is too long for a folder; choose a shorter name="
    place = error.filename2 or error.filename or "a file"
    why = error.strerror or str(error)
    if error.errno in FULL:
        return f"cannot write {place} ({why}); make room, then continue with run.resume=true"
    if begun and error.errno not in NOT_WRITABLE:
        return f"{place}: {why}; once that is fixed, continue with run.resume=true"
    return f"cannot write {place} ({why}); choose another run.outputs=FOLDER"


def explain_memory(error: Exception) -> str:
    """Returns what to do if `error` means that memory ran out; "" for other errors."""
    kind = type(error).__name__
    if not (kind in ("MemoryError", "OutOfMemoryError") or "can't allocate memory" in str(error)):
        return ""
    return (
        "there is not enough memory; smaller batches (recipe.baseline.batch_size and the like, "
        "run.latency_batch) or fewer images need less"
    )


def explain_composing(error: Exception) -> str:
    """Returns what Hydra could not read before a job began; "" for other errors."""
    if isinstance(error, UnicodeDecodeError):
        return f"an option's YAML is not UTF-8 ({error.reason}); save it so"
    if str(error).startswith("Invalid plugin"):
        return f"hydra.launcher and hydra.sweeper accept only Hydra plugins ({error})"
    return ""


def explain_lost(error: Exception, sweep: Path | None) -> str:
    """Returns how to complete the sweep if a job of it was killed; "" for other errors."""
    if type(error).__name__ not in LOST or sweep is None:
        return ""
    folder = shlex.quote(os.path.relpath(sweep))
    return (
        "a job was killed, and the launcher gave up; what is done is saved: prunebench status "
        f"{folder} --resume --go completes the sweep"
    )


def own_code(error: BaseException) -> str:
    """Returns where in the user's own files `error` arose; "" if in none of them."""
    others = (str(Path(__file__).parents[1]), sysconfig.get_paths()["stdlib"], "<")
    own = [
        f"{frame.filename}, line {frame.lineno}, in {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(others) and "site-packages" not in frame.filename
    ]
    return own[-1] if own else ""


def _missing_option(error: MissingConfigException) -> str:
    """Returns which option or file does not exist, and which do."""
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    for plugin, package in PLUGINS.items():
        if group.startswith("hydra/") and option.startswith(plugin):
            return f"{group}={option} needs a plugin: pip install '{package}'"
    if not option or error.options is None:
        return str(error)
    return unknown(f"{group}={option}", error.options)


def _unreadable(word: str) -> str:
    """Returns how to type a word that Hydra's parser cannot read."""
    key, is_setting, value = word.partition("=")
    if not is_setting or not _readable(f"{key}=x"):
        return _bare_word(word)
    if value[:1] in ("[", "{"):
        return (
            f"{word} cannot be read: brackets must be closed, and an entry with = or other signs "
            f"stands in quotes, such as '{key}=[\"a=b\"]'"
        )
    if value.startswith("~"):  # the shell expands ~ only at the beginning of a word
        typed = f"\"{key}='$HOME{value[1:]}'\""
    else:
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        typed = shlex.quote(f'{key}="{escaped}"')
    return f"{word} cannot be read without quotes; type {typed}"


def _bare_word(word: str) -> str:
    """Returns what a word that is not ``key=value`` may have been meant for."""
    groups = sorted(option_groups([conf_dir()]))
    if word in groups:
        return f"'{word}' needs an option: {word}=..., which prunebench {word} --help lists"
    if word in ("help", "version"):
        return f"'{word}' is not key=value; did you mean --{word}?"
    meant = [f"{group}={word}" for group in groups if find_option(group, word, [conf_dir()])]
    hint = f"did you mean {' or '.join(meant)}?" if meant else "see prunebench --help"
    return f"'{word}' is not key=value; {hint}"


def _readable(word: str) -> bool:
    """Returns whether Hydra's parser accepts `word`."""
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True
