"""Keeps secrets out of records: values of environment variables, and tokens in URLs."""

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
#: credentials in a URL: a password (with https also a bare name) before the host, or in the query
TOKEN = re.compile(
    r"https?://[^/?#\s@:]+@|://[^/?#\s@]*:[^/?#\s@]+@"
    r"|[?&][\w-]*(?:token|secret|password|signature|api_?key)=[^&#\s]+",
    re.IGNORECASE,
)
NAME = r"[A-Z][A-Z0-9_]*(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD)"
#: the name of a secret variable followed by a literal value, as in hydra.job.env_set or a shell
#: line of hydra.launcher.setup (also api_key and password in small letters; not if the value is
#: the shell's $VARIABLE); or its name alone in hydra.job.env_copy, whose value Hydra would write
SECRET = re.compile(
    rf"""(?<![A-Za-z0-9_])({NAME}|api_?key|password)"""
    r"""['"]?[ \t]*[:=][ \t]*['"]*(?!null\b)[^\s'"$,\]}]"""
    rf"""|env_copy['"]?[ \t]*[:=][^:=]*?\b({NAME})\b(?!['"]?[ \t]*:)"""
)
VARIABLE = re.compile(r"\$\{oc\.env:(\w+)")
#: shortest value of a variable that is replaced in messages: shorter ones occur in other words
SHORTEST = 6


def require_no_token(key: str, value: object) -> None:
    """Raises ConfigError if `value`, as written for `key`, contains a token in a URL."""
    require(
        not TOKEN.search(INTERPOLATION.sub("", str(value))),
        f"{key} has a token in its URL, which records would repeat; put it into an environment "
        "variable and type '${oc.env:NAME}' in its place",
    )


def require_no_secret(path: Path, text: str) -> None:
    """Raises ConfigError if `text`, the YAML of `path`, contains a secret."""
    require_no_token(str(path), text)
    _require_unset(f"{path} sets", "\n".join(line.partition("#")[0] for line in text.splitlines()))


def require_nothing_secret_typed(word: str) -> None:
    """Raises ConfigError if `word`, ``key=value``, contains a secret."""
    key, _, value = word.partition("=")
    require_no_token(key, value)
    _require_unset("the command line sets", word)


def _require_unset(who: str, text: str) -> None:
    """Raises ConfigError, beginning with `who`, if `text` sets a secret variable."""
    found = SECRET.search(INTERPOLATION.sub("", text))
    require(
        not found,
        f"{who} {found and (found[1] or found[2])}, which records would repeat; set it in the "
        "environment, where jobs find it",
    )


def redacted(text: str, hidden: Mapping[str, Any]) -> str:
    """Returns an error's `text` with tokens in URLs and hidden values replaced.

    `hidden` is as in `Run`; values of its environment variables are replaced by their names.
    """
    for name in VARIABLE.findall(str(list(hidden.values()))):
        value = os.environ.get(name, "")
        if len(value) >= SHORTEST:
            text = text.replace(value, f"${{oc.env:{name}}}")
    return TOKEN.sub("***", text)


def hidden(cfg: DictConfig, files: Collection[str]) -> dict[str, Any]:
    """Returns dotted key -> text as written, for all values taken from environment variables.

    Args:
        cfg: as composed.
        files: dotted keys that name files, whose contents are on record instead.

    Raises:
        ConfigError: such a value decides the result, and so must be on record; or a URL contains a
            token.
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
    """Returns nested `values` with those in `texts` (dotted key -> value) replaced."""
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
