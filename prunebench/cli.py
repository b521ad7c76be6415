"""The command line: hands the composed configuration over and explains mistakes in one line.

torch is imported only once a job runs, so that --help, --cfg, Tab and mistakes answer at once.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from prunebench import __version__
from prunebench.errors import PrunebenchError, unknown
from prunebench.options import conf_dir

#: a group for which something is typed that cannot be the name of an option
NO_OPTION = re.compile(r"[\w/@]+=(null|true|false|[-+.\de]+)", re.IGNORECASE)
#: what the jobs of this process ended with; a sweep goes on after one
MISTAKES: list[PrunebenchError] = []
#: the folders of the sweeps of this process
SWEEPS: list[Path] = []


class SweepFolder(Callback):
    """Remembers the folder of a sweep, which may be refused before its first job."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Is called before Hydra makes the folder."""
        SWEEPS.append(Path(config.hydra.sweep.dir))


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
def job(cfg: DictConfig) -> None:
    """Carries out one run in Hydra's output folder."""
    try:
        hand_over(cfg)
    except PrunebenchError as error:
        if not in_this_process():
            raise  # a launcher on a cluster learns of the failure by the exception alone
        MISTAKES.append(error)
        say(str(error))


def hand_over(cfg: DictConfig) -> None:
    """Checks `cfg` and runs it; a folder that Hydra made in vain does not stay."""
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    try:
        from prunebench.config import load

        chosen = hydra_config.runtime.choices.items()
        run = load(cfg, {str(k): str(v) for k, v in chosen if "/" not in str(k)}, files=True)
        from prunebench.run import runner

        runner.carry_out(run, folder, notes_on(cfg))
    finally:
        remove_unused(folder, f"{hydra_config.job.name}.log")


def notes_on(cfg: DictConfig) -> dict[str, str]:
    """Returns the files in which Hydra keeps how `cfg` was composed, name -> text."""
    overrides = HydraConfig.get().overrides.task
    texts = {"config": cfg, "hydra": HydraConfig.instance().cfg, "overrides": overrides}
    return {f".hydra/{name}.yaml": OmegaConf.to_yaml(value) for name, value in texts.items()}


def remove_unused(folder: Path, note: str) -> None:
    """Removes a folder that holds nothing, or a file `note` alone, and what it leaves empty above.

    Above it, nothing is removed but what lies below the current folder.
    """
    with suppress(OSError):  # other files are in there, or another process was faster
        here = Path.cwd()
        if folder.absolute() == here:
            return
        if [path.name for path in folder.iterdir()] == [note]:
            (folder / note).unlink()
        folder.rmdir()
        for parent in folder.absolute().parents:
            if here in parent.parents:
                parent.rmdir()


def in_this_process() -> bool:
    """Whether the job runs in the process that was called, alone or one of a sweep in turn."""
    launcher = str(HydraConfig.get().launcher._target_)
    return HydraConfig.get().mode is RunMode.RUN or launcher.endswith(".BasicLauncher")


def main() -> None:
    """Entry point of the ``prunebench`` command; user mistakes exit with 2."""
    if sys.version_info >= (3, 14):
        fail(
            "Python 3.14 is not supported: Hydra 1.3 and fvcore do not run on it; use 3.11 to 3.13"
        )
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"prunebench {__version__}\n")
        return
    try:
        if os.environ.get("HYDRA_FULL_ERROR"):  # the user wants every traceback
            job()
            for mistake in MISTAKES:
                raise mistake
        else:
            explained()
    finally:
        for sweep in SWEEPS:
            remove_unused(sweep, "multirun.yaml")
    if MISTAKES:
        raise SystemExit(2)


def explained() -> None:
    """Runs the job, or all of a sweep; what stops it is told in one line."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise, so that we can explain
    try:
        job()
    except KeyboardInterrupt:
        say("interrupted; the same command with run.resume=true goes on")
        raise SystemExit(130) from None
    except (PrunebenchError, HydraException, OmegaConfBaseException, YAMLError) as error:
        fail(explain(error))
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        fail("name is too long for a folder; choose a shorter name=")
    except ValueError as error:
        if "Config group override" not in str(error):
            raise
        typed = [word for word in sys.argv[1:] if NO_OPTION.fullmatch(word)]
        fail(f"{', '.join(typed)}: a group needs an option; prunebench --help lists them")


def fail(message: str) -> NoReturn:
    """Prints `message` as one line and exits with 2."""
    say(message)
    raise SystemExit(2)


def say(message: str) -> None:
    """Prints `message` as one line."""
    sys.stderr.write(f"prunebench: {' '.join(message.split())}\n")


def explain_missing(error: MissingConfigException) -> str:
    """Says which option or file is not known, and which are."""
    if error.missing_cfg_file and error.options is not None:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return unknown(f"{group}={option}", error.options)
    return str(error)


def explain(error: Exception) -> str:
    """Says in one line what an error of Hydra, OmegaConf or YAML means for the user."""
    if isinstance(error, MissingConfigException):
        return explain_missing(error)
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
                return unknown(str(cause.full_key), valid)
        cause = cause.__cause__
    return str(error)
