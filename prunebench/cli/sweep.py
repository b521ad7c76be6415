"""Tells the user which job of a sweep a message is about, and prints a table at its end."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from prunebench.cli.mistakes import say
from prunebench.cli.relay import relay
from prunebench.config.secrets import redacted
from prunebench.errors import ConfigError, PrunebenchError
from prunebench.records import FAILURE, REPORT, Report
from prunebench.records.below import below
from prunebench.records.unfinished import IDENTITY
from prunebench.records.waiting import REFUSED, refuse
from prunebench.sweeps.plans import SWEEP, jobs_of, places, typed

#: beginnings of settings that do not change a result; a job's name leaves them out
CARRIED_OUT = ("run.", "tracker", "name=", "hydra", "baseline.store", "dataset.root")
#: output folders of the jobs that this process has begun
BEGUN: list[Path] = []
#: folders of the sweeps of this process, even if no job has begun
FOLDERS: list[Path] = []
#: errors of the jobs that failed; a sweep goes on after one
MISTAKES: list[PrunebenchError] = []


def in_this_process() -> bool:
    """Returns whether jobs run in the main process, rather than in a launcher's workers."""
    launcher = str(HydraConfig.get().launcher._target_)
    return HydraConfig.get().mode is RunMode.RUN or launcher.endswith(".BasicLauncher")


def job_name() -> str:
    """Returns the job's number and the settings that set it apart; "" outside a sweep."""
    if not sweep_name():
        return ""
    return f"job {HydraConfig.get().job.num} ({' '.join(distinguishing())})"


def sweep_name() -> str:
    """Returns the name of the job's sweep; "" outside a sweep."""
    hydra = HydraConfig.get()
    return Path(str(hydra.sweep.dir)).name if hydra.mode is RunMode.MULTIRUN else ""


def title(name: str, seed: int) -> str:
    """Returns `name` with the settings that set the job apart, and its seed.

    Settings whose value is part of the name are left out, and so are those in `CARRIED_OUT`.
    """
    words = [word for word in distinguishing() if word.partition("=")[2] not in name.split("-")]
    return " ".join([name, *(word for word in words if "run.seed=" not in word), f"seed={seed}"])


def distinguishing() -> list[str]:
    """Returns the settings that vary in the sweep, or else all typed ones that decide the result.

    The latter happens on a cluster, where a job does not see the command that started the sweep.
    """
    words = overrides(HydraConfig.get())
    return varied() or [word for word in words if not word.startswith(CARRIED_OUT)]


def varied() -> list[str]:
    """Returns the job's settings for which the sweep has several values."""
    if not sweep_name():
        return []
    hydra = HydraConfig.get()
    swept = swept_keys(sys.argv[1:]) | {str(key) for key in hydra.sweeper.get("params") or ()}
    return [word for word in overrides(hydra) if word.partition("=")[0] in swept]


def overrides(hydra: Any) -> list[str]:
    """Returns the settings typed for a job, with interpolations as written."""
    words: Any = OmegaConf.to_container(hydra.overrides.task)
    return [str(word) for word in words]


def swept_keys(words: list[str]) -> set[str]:
    """Returns the keys and groups for which `words` give several values."""
    settings = [word for word in words if "=" in word and not word.startswith("-")]
    parsed = OverridesParser.create().parse_overrides(settings)
    return {override.key_or_group for override in parsed if override.is_sweep_override()}


def objectives(report: Report | None) -> tuple[float, int] | None:
    """Returns validation accuracy in percent and MACs, for a search; None for a dry run.

    Raises:
        ConfigError: a search has no validation images; it must not use test images.
    """
    last = report and report.at("finetuned_last")
    if last and last.val:
        return last.val.accuracy, last.macs
    if last and not is_grid(HydraConfig.get()):
        raise ConfigError("a search needs validation images; set dataset.val_size above 0")
    return None


def is_grid(hydra: Any) -> bool:
    """Returns whether all jobs of the sweep are known from its start."""
    return str(hydra.sweeper._target_).endswith(".BasicSweeper")


def jobless(hydra: Any) -> str:
    """Returns a message on words that stand for no value, so that a grid has no job; else ""."""
    words = overrides(hydra) if is_grid(hydra) else []
    empty = [word for word in words if not jobs_of([word], places(hydra))]
    return f"{', '.join(empty)} matches nothing, so there are no jobs" if empty else ""


def begin() -> None:
    """Counts the job, and announces it if it belongs to a sweep."""
    BEGUN.append(Path(str(HydraConfig.get().runtime.output_dir)))
    if job_name():
        say(f"{job_name()} begins")


def note_refused(error: PrunebenchError) -> None:
    """Records in the sweep's folder why a job was refused before it had a folder of its own."""
    hydra = HydraConfig.get()
    if sweep_name() and not (Path(str(hydra.runtime.output_dir)) / IDENTITY).exists():
        words = overrides(hydra)
        why = redacted(str(error), {"typed": words})
        refuse(Path(str(hydra.sweep.dir)), int(hydra.job.num), typed(words), why)


def forget_if_all_refused(sweep: Path) -> None:
    """Removes what `note_refused` wrote if no job of the sweep has begun."""
    if not below(sweep, IDENTITY):
        for path in sweep.glob(REFUSED):
            path.unlink(missing_ok=True)


def give_up(error: PrunebenchError) -> None:
    """Counts the job as failed, and prints the reason."""
    MISTAKES.append(error)
    say(": ".join(filter(None, [job_name(), str(error)])))


class SweepFolder(Callback):
    """Remembers the folder of a sweep, and prints a table of its runs at the end."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra before it creates the folder."""
        folder = Path(str(config.hydra.sweep.dir))
        FOLDERS.append(folder)
        if str(config.hydra.launcher._target_).endswith(".JoblibLauncher"):
            relay()
        if not is_grid(config.hydra):  # only Hydra's own sweeper saves the configuration
            folder.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(config, folder / SWEEP)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra in the main process, wherever the jobs ran."""
        if nothing := jobless(config.hydra):
            MISTAKES.append(ConfigError(nothing))
            say(nothing)
            return
        folder = Path(os.path.relpath(str(config.hydra.sweep.dir)))
        counted = f"{len(MISTAKES)} of {len(BEGUN)} jobs failed" if BEGUN else "the jobs are done"
        recorded = bool(below(folder, REPORT, FAILURE))
        if recorded:
            from prunebench.reports.table import print_table

            print_table([folder])
        say(counted + (f"; their table again: prunebench table {folder}" if recorded else ""))
