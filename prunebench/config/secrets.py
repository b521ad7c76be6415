"""Secrets: no record repeats what an environment variable gives, nor a token in a URL."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.resolvers import oc

from prunebench.errors import require
from prunebench.records.identity import NOT_DECIDING, dotted

INTERPOLATION = re.compile(r"\$\{[^{}]*\}")
#: in a URL: a password (of https, any name) before the host, and what opens doors in the query
TOKEN = re.compile(
    r"https?://[^/?#\s@:]+@|://[^/?#\s@]*:[^/?#\s@]+@"
    r"|[?&][\w-]*(?:token|secret|password|signature|api_?key)=[^&#\s]+",
    re.IGNORECASE,
)
NAME = r"[A-Z][A-Z0-9_]*(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD)"
#: a variable of the environment that is a secret, such as hydra.job.env_set gives to jobs, or a
#: line of the shell in hydra.launcher.setup, and the like in small letters; and its value, unless
#: the shell finds that; or its name alone in hydra.job.env_copy, for which Hydra writes its value
SECRET = re.compile(
    rf"""(?<![A-Za-z0-9_])({NAME}|api_?key|password)"""
    r"""['"]?[ \t]*[:=][ \t]*['"]*(?!null\b)[^\s'"$,\]}]"""
    rf"""|env_copy['"]?[ \t]*[:=][^:=]*?\b({NAME})\b(?!['"]?[ \t]*:)"""
)
VARIABLE = re.compile(r"\$\{oc\.env:(\w+)")
#: a value of the environment with fewer characters is no secret, but part of many words
SHORTEST = 6


def require_no_token(key: str, value: object) -> None:
    """Raises ConfigError where `value`, as it was written for `key`, has a token in a URL."""
    require(
        not TOKEN.search(INTERPOLATION.sub("", str(value))),
        f"{key} has a token in its URL, which records would repeat; put it into an environment "
        "variable and type '${oc.env:NAME}' in its place",
    )


def require_no_secret(path: Path, text: str) -> None:
    """Raises ConfigError where `text`, the YAML of `path`, holds what no record may repeat."""
    require_no_token(str(path), text)
    _require_unset(f"{path} sets", "\n".join(line.partition("#")[0] for line in text.splitlines()))


def require_nothing_secret_typed(word: str) -> None:
    """Raises ConfigError where `word`, ``key=value``, holds what no record may repeat."""
    key, _, value = word.partition("=")
    require_no_token(key, value)
    _require_unset("the command line sets", word)


def _require_unset(who: str, text: str) -> None:
    """Raises ConfigError, which `who` begins, where `text` gives a secret its value."""
    found = SECRET.search(INTERPOLATION.sub("", text))
    require(
        not found,
        f"{who} {found and (found[1] or found[2])}, which records would repeat; set it in the "
        "environment, where jobs find it",
    )


def unsaid(text: str, hidden: Mapping[str, Any]) -> str:
    """Returns `text`, an error's say, without tokens in URLs and values of the environment.

    `hidden` is as in `Run`.
    """
    for name in VARIABLE.findall(str(list(hidden.values()))):
        value = os.environ.get(name, "")
        if len(value) >= SHORTEST:
            text = text.replace(value, f"${{oc.env:{name}}}")
    return TOKEN.sub("***", text)


def hidden(cfg: DictConfig, files: Collection[str]) -> dict[str, Any]:
    """Returns dotted key -> text for all values of `cfg` that hold an environment variable's.

    Args:
        cfg: as composed.
        files: dotted keys of those that name files, which are on record by what they hold.

    Raises:
        ConfigError: such a value decides the result, which nobody could then read off the record;
            or a URL has a token in it.
    """
    typed = _values(cfg, resolve=False)
    for key, value in dotted(typed):
        require_no_token(key, value)
    if "oc.env" not in str(typed):
        return {}
    given = dict(dotted(_values(cfg, resolve=True)))
    try:
        OmegaConf.register_new_resolver("oc.env", _as_written, replace=True)
        written = dict(dotted(_values(cfg, resolve=True)))
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
    found = {key: text for key, text in written.items() if text != given.get(key)}
    for key in found:
        decides = not any(f"{key}.".startswith(f"{place}.") for place in NOT_DECIDING)
        require(
            not decides or key in files or "oc.env" not in TOKEN.sub("", str(found[key])),
            f"{key}={found[key]} affects the result, so its value must be on record; type the "
            "value itself",
        )
    return found


def overlaid(
    values: Mapping[str, Any], texts: Mapping[str, Any], prefix: str = ""
) -> dict[str, Any]:
    """Returns nested `values` with those of `texts` (dotted key -> value) in their places."""
    return {
        key: overlaid(value, texts, f"{prefix}{key}.")
        if isinstance(value, Mapping) and value
        else texts.get(f"{prefix}{key}", value)
        for key, value in values.items()
    }


def _as_written(name: str, *default: object) -> str:
    return f"${{oc.env:{name}}}"


def _values(cfg: DictConfig, *, resolve: bool) -> dict[str, Any]:
    values = OmegaConf.to_container(cfg, resolve=resolve)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
