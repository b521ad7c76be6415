"""Implements the command line: runs jobs composed by Hydra, and explains mistakes in one line.

Begin with `main`, which answers everything typed after ``prunebench``: a verb of `VERBS` has a
module of its own, all else is a run (`job`) or a sweep. torch is imported only once a job runs, and
the modules of a verb only when it is typed, so that --help, --cfg, Tab and mistakes answer at once.
"""

from __future__ import annotations

import atexit
import gc
import os
import re
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from prunebench import __version__
from prunebench.cli import sweep
from prunebench.cli.arguments import flags_first, folders, parsed
from prunebench.cli.leftovers import notes_on, remove_unused
from prunebench.cli.mistakes import (
    explain,
    explain_composing,
    explain_lost,
    explain_memory,
    explain_os,
    fail,
    own_code,
    say,
)
from prunebench.cli.option_help import option_help
from prunebench.cli.relay import answered
from prunebench.cli.sources import read_with_care
from prunebench.cli.streams import outlive_the_terminal
from prunebench.config.launched import launched
from prunebench.errors import ConfigError, PrunebenchError, require
from prunebench.interruption import BY_HAND, Interrupted, stop_if_late
from prunebench.options.code import make_importable
from prunebench.options.files import conf_dir

if TYPE_CHECKING:
    from prunebench.config import Run
    from prunebench.records import Report

Found = TypeVar("Found")
#: verb -> the function that takes the words after it and returns the exit code
VERBS = {
    "check": "prunebench.cli.export:check",
    "export": "prunebench.cli.export:main",
    "page": "prunebench.cli.page:main",
    "plot": "prunebench.cli.plot:main",
    "published": "prunebench.cli.published:main",
    "reproduce": "prunebench.cli.reproduce:main",
    "rerun": "prunebench.cli.rerun:main",
    "status": "prunebench.sweeps.status:main",
    "store": "prunebench.cli.store:main",
    "table": "prunebench.cli.table:main",
}
#: a setting such as criterion=null, whose value cannot be the name of an option
NO_OPTION = re.compile(r"[\w/@]+=(null|true|false|[-+.\de]+)", re.IGNORECASE)
#: beginning of the message about an unknown key
UNKNOWN = re.compile(r"'([\w.]+)' is not known")


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
def job(cfg: DictConfig) -> tuple[float, int] | None:
    """Carries out one run in Hydra's output folder; returns the objectives for a search."""
    outlive_the_terminal()
    sweep.begin()
    try:
        return sweep.objectives(hand_over(cfg))
    except PrunebenchError as error:
        sweep.note_refused(error)
        if not sweep.in_this_process():
            raise  # only the exception tells a launcher on a cluster that the job failed
        sweep.give_up(error)
        return None


def hand_over(cfg: DictConfig) -> Report | None:
    """Checks `cfg` and runs it; removes a folder that Hydra made for nothing.

    Raises:
        PrunebenchError: a mistake of the user's.
    """
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    if hydra_config.job.chdir:  # leave the folder, so that it can be removed
        os.chdir(hydra_config.runtime.cwd)
    try:
        stop_if_late()
        require(
            not hydra_config.job.chdir,
            "with hydra.job.chdir=true each run would look for data, baselines and earlier runs "
            "in its own folder; leave it out",
        )
        require(
            not os.path.relpath(folder).startswith("~"),
            "run.outputs, hydra.run.dir and hydra.sweep.dir do not expand ~; type $HOME instead",
        )
        require(
            not (launched() and sweep.sweep_name() and sweep.in_this_process()),
            "torchrun and srun make one run of their processes; start each run of a sweep with "
            "them, or let a launcher start jobs (hydra/launcher=submitit_slurm)",
        )
        run = checked(cfg)
        from prunebench.run import runner

        label = runner.Label(sweep.title(run.name, run.settings.seed), sweep.sweep_name())
        return runner.carry_out(run, folder, notes_on(cfg), label)
    finally:
        remove_unused(folder, f"{hydra_config.job.name}.log")


def checked(cfg: DictConfig) -> Run:
    """Returns the run that `cfg` describes.

    Settings that a preset makes for an option which the user has replaced by another are left out,
    with a message.

    Raises:
        ConfigError: it does not describe a run. For an unknown key that the user did not type, the
            message names the method or experiment that sets it.
    """
    from prunebench.config import load
    from prunebench.config.idle import idle
    from prunebench.config.presets import check_method, leave_out, setter

    hydra_config = HydraConfig.get()
    runtime = hydra_config.runtime
    choices = {str(k): str(v) for k, v in runtime.choices.items() if "/" not in str(k)}
    where = [Path(source.path) for source in runtime.config_sources if source.schema == "file"]
    check_method(choices, where)
    beside = [Path.cwd(), *(folder for folder in where if folder != conf_dir())]
    make_importable(str(cfg.model.get("target") or ""), beside)
    typed = [word.lstrip("+~") for word in sweep.overrides(hydra_config)]
    for line in leave_out(cfg, choices, where, typed):
        say(line)
    try:
        run = load(cfg, choices, files=True)
    except ConfigError as error:
        about = UNKNOWN.match(str(error))
        key = about[1] if about else ""
        preset = setter(key, choices, where)
        if not preset or any(f"{key}=" in word for word in typed):
            raise
        group = key.partition(".")[0]
        raise ConfigError(f"{error}; {preset} sets it, for another {group}") from error
    for line in idle(run, typed):
        say(line)
    return run


def main() -> None:
    """Runs the ``prunebench`` command; exits with 2 for a mistake of the user's."""
    atexit.register(gc.freeze)  # spares the last garbage collection, which would traverse torch
    try:
        answer(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


def answer(words: list[str]) -> None:
    """Executes the words typed after ``prunebench``."""
    if sys.version_info >= (3, 14):
        fail(
            "Python 3.14 is not supported: Hydra 1.3 and fvcore do not run on it; use 3.11 to 3.13"
        )
    if "--version" in words:
        sys.stdout.write(f"prunebench {__version__}\n")
        return
    first = words[0] if words else ""
    if first in VERBS:
        raise SystemExit(explained(lambda: do(first, words[1:])))
    if first.isalpha() and (near := get_close_matches(first, VERBS, n=1, cutoff=0.75)):
        fail(f"'{first}' is not known; did you mean prunebench {near[0]}?")
    args = explained(lambda: parsed(words))
    help_text = explained(lambda: option_help(args.overrides, folders(args))) if args.help else ""
    if help_text:
        sys.stdout.write(f"{help_text}\n")
        return
    sys.argv[1:] = flags_first(words, args)
    read_with_care()
    run_jobs()


def do(verb: str, words: Sequence[str]) -> int:
    """Executes `verb` with the `words` after it; returns the exit code."""
    code: int = resolve_name(VERBS[verb])(words)
    return code


def run_jobs() -> None:
    """Runs the job or sweep; mistakes are explained in one line unless HYDRA_FULL_ERROR is set."""
    try:
        if os.environ.get("HYDRA_FULL_ERROR"):  # the user wants tracebacks
            job()
            for mistake in sweep.MISTAKES:
                raise mistake
        else:
            os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise errors rather than print them
            explained(lambda: answered(job))
    finally:
        for folder in sweep.FOLDERS:
            sweep.forget_if_all_refused(folder)
            remove_unused(folder, "multirun.yaml")
    if sweep.MISTAKES:
        raise SystemExit(2)


def explained(work: Callable[[], Found]) -> Found:
    """Returns the result of `work`; exits with a one-line message on known kinds of errors.

    Errors in prunebench itself pass through with their traceback.
    """
    try:
        return work()
    except Interrupted as stopped:
        say(f"{stopped}; progress is saved: continue with the same command and run.resume=true")
        raise SystemExit(stopped.code) from None
    except KeyboardInterrupt:
        say("interrupted")
        raise SystemExit(BY_HAND) from None
    except (PrunebenchError, HydraException, OmegaConfBaseException, YAMLError) as error:
        fail(explain(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        fail(explain_os(error, begun=bool(sweep.BEGUN)))
    except Exception as error:
        lost = explain_lost(error, sweep.FOLDERS[-1] if sweep.FOLDERS else None)
        composing = "" if sweep.BEGUN else explain_composing(error)
        if told := lost or explain_memory(error) or composing:
            fail(told)
        if "Config group override" in str(error):
            typed = [word for word in sys.argv[1:] if NO_OPTION.fullmatch(word)]
            fail(f"{', '.join(typed)}: a group needs an option; prunebench --help lists them")
        place = own_code(error)
        if not place:
            raise
        fail(f"{type(error).__name__}: {error} ({place}); HYDRA_FULL_ERROR=1 shows the traceback")
