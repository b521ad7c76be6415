"""Checks and orders the words of the command line before Hydra reads them."""

from __future__ import annotations

import io
from argparse import Namespace
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path

from hydra._internal.utils import get_args_parser

from prunebench.config.secrets import require_nothing_secret_typed
from prunebench.errors import ConfigError, require
from prunebench.options.files import conf_dir, option_groups, read_option

FIRST = (
    "nothing to run yet; try prunebench experiment=quickstart (about a minute, no download); "
    "prunebench --help lists what else can be typed"
)


def parsed(words: Sequence[str]) -> Namespace:
    """Parses `words`, flags and ``key=value`` in any order.

    Raises:
        ConfigError: a flag is unknown, two exclude each other, there is nothing to do, or a secret
            is typed.
    """
    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint):
            args = get_args_parser().parse_intermixed_args(list(words))
    except SystemExit as error:
        raise ConfigError(_complaint(complaint.getvalue(), words)) from error
    modes = [args.run, args.multirun, args.cfg, args.info, args.shell_completion]
    require(
        sum(map(bool, modes)) <= 1,
        "only one of --run, -m (--multirun), --cfg, --info and -sc can be typed; "
        "--cfg job shows a single run, without lists of values",
    )
    require(
        args.experimental_rerun is None,
        "--experimental-rerun runs what a pickle holds; prunebench rerun report.json repeats a run",
    )
    asked = (args.cfg, args.info, args.shell_completion, args.help, args.hydra_help)
    require(any((*asked, args.overrides, args.config_name, args.config_path)), FIRST)
    for word in args.overrides:  # now, since Hydra will write the overrides to files
        require_nothing_secret_typed(str(word))
    return args


def flags_first(words: Sequence[str], args: Namespace) -> list[str]:
    """Returns `words` in the order that Hydra's own parser needs: flags, then ``key=value``."""
    flags = list(words)
    for word in args.overrides:
        flags.remove(word)
    return [*flags, *args.overrides]


def folders(args: Namespace) -> list[Path]:
    """Returns the folders with options: the shipped one, then the user's."""
    return [conf_dir(), *(Path(str(own)) for own in [args.config_dir] if own)]


def _complaint(told: str, words: Sequence[str]) -> str:
    """Returns argparse's complaint as one line, with a hint at how settings are typed."""
    complaint = told.rpartition("error: ")[2].strip()
    sections = read_option(conf_dir() / "config.yaml")
    for word in words:
        name, _, value = word.lstrip("-").partition("=")
        key = name.replace("-", "_")
        homes = [section for section in ("run", "baseline") if key in sections[section]]
        if word.startswith("--") and (homes or key in option_groups([conf_dir()])):
            typed = ".".join([*homes, key])
            return f"{complaint}; settings are typed without dashes: {typed}={value or '...'}"
    return f"{complaint}; settings are typed as key=value: prunebench --help"
