"""Implements ``prunebench rerun report.json``: repeats a run and compares the results."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from prunebench.cli.leftovers import remove_unused
from prunebench.cli.mistakes import say
from prunebench.config import Run, load
from prunebench.errors import ConfigError, DataError, Parser, require
from prunebench.interruption import Interrupted
from prunebench.options.files import conf_dir, read_option
from prunebench.records import REPORT, Report
from prunebench.records.equality import first_difference, other_surroundings
from prunebench.records.unfinished import IDENTITY
from prunebench.reports.load import load_runs

#: keys that a repetition may change: paths, and how the run is carried out
MAY_CHANGE = (
    "dataset.root", "dataset.download", "dataset.path", "baseline.checkpoint", "model.report",
    "baseline.store", "run.outputs", "run.device", "run.threads", "run.processes",
    "run.checkpoint_seconds", "run.compile",
)  # fmt: skip


def main(words: Sequence[str]) -> int:
    """Repeats a run; returns 0 if the result is equal, 1 if not.

    Raises:
        PrunebenchError: it cannot be repeated.
    """
    asked = _parser().parse_args(words)
    before = read(asked.report)
    config = as_reported(before, asked.settings)
    folder = asked.into or new_folder(config)
    require(
        folder.resolve() not in (asked.report.resolve(), asked.report.resolve().parent),
        f"--into {folder} is the folder of the run itself; choose another",
    )
    config["run"]["resume"] = (folder / IDENTITY).exists()
    run = load(OmegaConf.create(config), {**before.choices, "tracker": "none"}, files=True)
    require_same_files(before, run)
    try:
        carry_out(run, before, folder)
    except Interrupted as stopped:
        say(f"{stopped}; prunebench rerun {asked.report} --into {folder} continues it")
        return stopped.code
    difference = first_difference(before, read(folder / REPORT))
    sys.stdout.write(f"{f'not equal: {difference}' if difference else 'equal'}\n")
    return int(bool(difference))


def read(path: Path) -> Report:
    """Returns the one report at `path`, a file or the folder of a run.

    Raises:
        DataError: it is missing or damaged, the run did not finish, or there are several.
    """
    found = load_runs([path]).reports
    if len(found) != 1:
        several = f"{len(found)} reports; name one" if found else "no report of a run that finished"
        raise DataError(f"{path} holds {several}")
    return found[0][1]


def as_reported(before: Report, settings: Sequence[str]) -> dict[str, Any]:
    """Returns the report's configuration, changed by `settings`, for a repetition.

    The baseline is trained again, and no tracker is used. Keys on carrying out a run that earlier
    versions did not have take today's defaults.

    Raises:
        ConfigError: one of `settings` cannot be read, or would make it another run.
    """
    today = read_option(conf_dir() / "config.yaml")
    config = OmegaConf.create(before.config)
    for part in ("run", "baseline"):
        config[part] = OmegaConf.merge(today[part], config[part])
    config.run.dry_run, config.baseline.store = False, False
    config.tracker = {"_target_": "prunebench.tracking.NoTracker"}
    for word in settings:
        key = word.partition("=")[0]
        require("=" in word, f"'{word}' is not key=value; see prunebench rerun --help")
        require(
            key in MAY_CHANGE,
            f"{key} would make it another run; a repetition takes {', '.join(MAY_CHANGE)}",
        )
    try:
        changed = OmegaConf.merge(config, OmegaConf.from_dotlist(list(settings)))
        plain = OmegaConf.to_container(changed, resolve=True)
    except (OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"{' '.join(settings)} cannot be read ({error})") from None
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def new_folder(config: dict[str, Any]) -> Path:
    """Returns the folder for a run of `config` that begins now."""
    begun = datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S-%f")
    return Path(config["run"]["outputs"]) / str(config["name"]) / begun


def require_same_files(before: Report, run: Run) -> None:
    """Raises DataError if a file that the original run read has changed since."""
    for key, held in (before.contents or {}).items():
        now = run.contents.get(key)
        if now != held:
            require(not key.endswith("._target_"), f"{key}: its code is not that of the report")
            raise DataError(
                f"{key}: the file is not the one of the report (sha256 {held[:12]}..., here "
                f"{(now or 'none')[:12]}...); say where that lies: {key}=..."
            )


def carry_out(run: Run, before: Report, folder: Path) -> None:
    """Carries out `run` in `folder`, after a message on versions and hardware that differ."""
    from prunebench.records.environment import environment
    from prunebench.run import runner
    from prunebench.run.context import pick_device

    now = environment(pick_device(run.settings.device))
    now["threads"] = run.settings.threads or now["threads"]  # the run will set them
    if others := other_surroundings(before, now):
        say(f"not as it was: {others}")
    try:
        runner.carry_out(run, folder, {}, runner.Label())
    finally:
        remove_unused(folder, "")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="prunebench rerun",
        description=(
            "Repeats a run from its report, baseline included, in a new folder, and says whether "
            "plan, counts, accuracies and losses are equal. Exit code: 0 equal, 1 not equal, "
            "2 it cannot be repeated."
        ),
    )
    parser.add_argument("report", type=Path, help="report.json, or the folder of a run")
    parser.add_argument(
        "settings",
        nargs="*",
        default=[],
        metavar="key=value",
        help=f"settings that may differ: {', '.join(MAY_CHANGE)}",
    )
    parser.add_argument(
        "--into",
        type=Path,
        metavar="FOLDER",
        help="folder for the repetition; continues one that was killed there",
    )
    return parser
