"""What a sweep says of itself: which job a message is of, and its table at the end."""

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
from prunebench.config.secrets import unsaid
from prunebench.errors import ConfigError, PrunebenchError
from prunebench.records import FAILURE, REPORT, Report
from prunebench.records.below import below
from prunebench.records.unfinished import IDENTITY
from prunebench.records.waiting import REFUSED, refuse
from prunebench.sweeps.plans import SWEEP, jobs_of, places, typed

#: how the settings begin that say how a run is carried out, and who is told
CARRIED_OUT = ("run.", "tracker", "name=", "hydra", "baseline.store", "dataset.root")
#: the output folders of the jobs that this process has begun
BEGUN: list[Path] = []
#: the folders of the sweeps of this process, which may be refused before their first job
FOLDERS: list[Path] = []
#: what those of them ended with that failed; a sweep goes on after one
MISTAKES: list[PrunebenchError] = []


def in_this_process() -> bool:
    """Whether the job runs in the process that was called, alone or one of a sweep in turn."""
    launcher = str(HydraConfig.get().launcher._target_)
    return HydraConfig.get().mode is RunMode.RUN or launcher.endswith(".BasicLauncher")


def job_name() -> str:
    """Returns a sweep's job by its number and what tells it from the others; "" if it is alone."""
    if not sweep_name():
        return ""
    return f"job {HydraConfig.get().job.num} ({' '.join(telling())})"


def sweep_name() -> str:
    """Returns what the sweep is called that the job belongs to; "" if it is alone."""
    hydra = HydraConfig.get()
    return Path(str(hydra.sweep.dir)).name if hydra.mode is RunMode.MULTIRUN else ""


def title(name: str, seed: int) -> str:
    """Returns the job's `name` with what tells it from others: what varies, or was typed, and seed.

    What the name says itself is left out, and so is how a single run is carried out.
    """
    words = [word for word in telling() if word.partition("=")[2] not in name.split("-")]
    return " ".join([name, *(word for word in words if "run.seed=" not in word), f"seed={seed}"])


def telling() -> list[str]:
    """Returns what varies; all that decides the result where the command typed is out of sight."""
    typed = [str(word) for word in HydraConfig.get().overrides.task]
    return varied() or [word for word in typed if not word.startswith(CARRIED_OUT)]


def varied() -> list[str]:
    """Returns the settings of a sweep's job for which the sweep has several values."""
    if not sweep_name():
        return []
    hydra = HydraConfig.get()
    swept = swept_keys(sys.argv[1:]) | {str(key) for key in hydra.sweeper.get("params") or ()}
    return [str(word) for word in hydra.overrides.task if str(word).partition("=")[0] in swept]


def swept_keys(words: list[str]) -> set[str]:
    """Returns the keys and groups for which `words` give several values."""
    settings = [word for word in words if "=" in word and not word.startswith("-")]
    parsed = OverridesParser.create().parse_overrides(settings)
    return {override.key_or_group for override in parsed if override.is_sweep_override()}


def objectives(report: Report | None) -> tuple[float, int] | None:
    """Returns what a search goes by: validation accuracy in percent, and MACs; None of a dry run.

    Raises:
        ConfigError: a search has no validation images to go by; the test images choose nothing.
    """
    last = report and report.at("finetuned_last")
    if last and last.val:
        return last.val.accuracy, last.macs
    if last and not is_grid(HydraConfig.get()):
        raise ConfigError("a search needs validation images; set dataset.val_size above 0")
    return None


def is_grid(hydra: Any) -> bool:
    """Whether a sweep's jobs are known before the first begins, and Hydra writes them down."""
    return str(hydra.sweeper._target_).endswith(".BasicSweeper")


def jobless(hydra: Any) -> str:
    """Says which words of a grid stand for no value at all, so that it has no job; "" if none."""
    words = [str(word) for word in hydra.overrides.task] if is_grid(hydra) else []
    empty = [word for word in words if not jobs_of([word], places(hydra))]
    return f"{', '.join(empty)} matches nothing, so there are no jobs" if empty else ""


def begin() -> None:
    """Counts the job, and says which one of a sweep it is."""
    BEGUN.append(Path(str(HydraConfig.get().runtime.output_dir)))
    if job_name():
        say(f"{job_name()} begins")


def note_refused(error: PrunebenchError) -> None:
    """Leaves in the sweep's folder why a job of it was refused that has no folder of its own."""
    hydra = HydraConfig.get()
    if sweep_name() and not (Path(str(hydra.runtime.output_dir)) / IDENTITY).exists():
        words = [str(word) for word in hydra.overrides.task]
        why = unsaid(str(error), {"typed": words})
        refuse(Path(str(hydra.sweep.dir)), int(hydra.job.num), typed(words), why)


def forget_if_all_refused(sweep: Path) -> None:
    """Removes what `note_refused` left where no job of the sweep has begun."""
    if not below(sweep, IDENTITY):
        for path in sweep.glob(REFUSED):
            path.unlink(missing_ok=True)


def give_up(error: PrunebenchError) -> None:
    """Counts the job as failed and says why."""
    MISTAKES.append(error)
    say(": ".join(filter(None, [job_name(), str(error)])))


class SweepFolder(Callback):
    """Remembers the folder of a sweep; when it is over, shows what it holds."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra before it makes the folder."""
        folder = Path(str(config.hydra.sweep.dir))
        FOLDERS.append(folder)
        if str(config.hydra.launcher._target_).endswith(".JoblibLauncher"):
            relay()
        if not is_grid(config.hydra):  # whose sweeper leaves this undone
            folder.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(config, folder / SWEEP)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra in the process that was called, wherever the jobs ran."""
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
