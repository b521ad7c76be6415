"""Implements ``prunebench status``: how far sweeps and runs are, and how to complete them."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from prunebench.errors import DataError, Parser, require
from prunebench.records.below import below
from prunebench.records.unfinished import IDENTITY
from prunebench.records.waiting import refused
from prunebench.sweeps.plans import Asked, folders, job_words, run_in, sweep_in
from prunebench.sweeps.progress import STATES, Progress, progress_in

#: characters per line if there is no terminal
FILE_WIDTH = 120
#: escape sequence that clears a terminal
CLEARED = "\033[H\033[2J"
#: states of jobs that can be completed
OPEN = ("failed", "interrupted", "lost", "not begun")


@dataclass(frozen=True, kw_only=True)
class Status:
    """Describes a sweep, or all runs outside sweeps.

    Attributes:
        folder: of the sweep, or of all runs.
        jobs: how far each has come.
        commands: that complete them.
        damaged: messages on files that cannot be read, so that nothing can be completed.
    """

    folder: Path
    jobs: list[Progress]
    commands: list[Asked] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


def main(words: Sequence[str]) -> int:
    """Prints the state of all runs below a folder; returns the exit code.

    Raises:
        ConfigError: the interval of ``--watch`` is not positive.
        DataError: there is no run in the folder.
    """
    options = _parser().parse_args(words)
    again = options.watch
    require(again is None or again > 0, f"--watch takes seconds above 0, got {again}")
    anew = CLEARED if again and sys.stdout.isatty() else ""
    while True:
        found = statuses(options.folder)
        if options.json:
            sys.stdout.write(json.dumps([plain(status) for status in found], indent=2) + "\n")
        elif not options.resume and not options.go:
            sys.stdout.write(anew + drawn(found))
        sys.stdout.flush()
        if not again:
            break
        time.sleep(again)
    if not options.resume and not options.go:
        return 0
    return complete([one for status in found for one in status.commands], go=options.go)


def statuses(root: Path) -> list[Status]:
    """Returns the sweeps below `root`, followed by the runs outside sweeps.

    Raises:
        DataError: `root` is no folder, or holds no run.
    """
    if not root.is_dir():
        raise DataError(f"{root} is no folder; give the one that runs or sweeps are in")
    sweeps, runs = folders(root)
    found = [_of_sweep(folder) for folder in sweeps]
    if runs:
        jobs = {run: progress_in(run) for run in runs}
        status = Status(folder=root, jobs=list(jobs.values()))
        for run, job in jobs.items():
            if job.state in OPEN:
                _add(status, run_in, run)
        found.append(status)
    if not found:
        raise DataError(f"no run or sweep in {root}; run prunebench first")
    return found


def _of_sweep(folder: Path) -> Status:
    begun = [path.parent for path in below(folder, IDENTITY)]
    status = Status(folder=folder, jobs=[progress_in(run) for run in begun])
    _add(status, sweep_in, folder)
    jobs = [job for asked in status.commands for job in asked.jobs]
    why = refused(folder)
    for number, words in not_begun(jobs, begun).items():
        name = f"{number} ({' '.join(_distinguishing(words, jobs))})"
        reason = why.get(frozenset(words), "")
        state = "failed" if reason else "not begun"
        status.jobs.append(Progress(name=name, state=state, why=reason))
    if not any(job.state in OPEN for job in status.jobs):
        status.commands.clear()
    return status


def not_begun(jobs: Sequence[Sequence[str]], begun: Sequence[Path]) -> dict[int, Sequence[str]]:
    """Returns number -> overrides of those `jobs` that have no folder among `begun`."""
    known = {frozenset(job_words(run)) for run in begun}
    return {number: job for number, job in enumerate(jobs) if frozenset(job) not in known}


def _add(status: Status, read: Callable[[Path], Asked], folder: Path) -> None:
    """Adds the command that completes `folder`, or the reason why there is none."""
    try:
        status.commands.append(read(folder))
    except DataError as error:
        status.damaged.append(str(error))


def _distinguishing(words: Sequence[str], jobs: Sequence[Sequence[str]]) -> list[str]:
    """Returns the words of a job that not all jobs share."""
    return [word for word in words if not all(word in job for job in jobs)]


def complete(commands: Sequence[Asked], *, go: bool) -> int:
    """Prints the commands that complete everything; with `go`, also runs them one by one.

    Returns:
        The exit code: 0, or that of the last command that failed.
    """
    code = 0
    for asked in commands:
        typed = shlex.join(["prunebench", *asked.words])
        here = asked.cwd == Path.cwd()
        sys.stdout.write(f"{typed}\n" if here else f"cd {shlex.quote(str(asked.cwd))} && {typed}\n")
        sys.stdout.flush()
        if go:
            run = [sys.executable, "-m", "prunebench", *asked.words]
            code = subprocess.run(run, cwd=asked.cwd, check=False).returncode or code
    if not commands:
        sys.stdout.write("nothing to complete\n")
    return code


def drawn(found: Sequence[Status]) -> str:
    """Returns the states as text: a line of counts per sweep, and a line per job not done."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = shutil.get_terminal_size((FILE_WIDTH, 24)).columns
    console = Console(width=width, markup=False, highlight=False)
    with console.capture() as capture:
        for status in found:
            counts = Counter(job.state for job in status.jobs)
            summary = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
            console.print(Text(f"{os.path.relpath(status.folder)}: {summary}", style="bold"))
            table = Table(box=None, show_header=False, pad_edge=False)
            for job in status.jobs:
                if job.state != "done":
                    table.add_row(*map(Text, ("", job.name, job.state, about(job))))
            if table.row_count:
                console.print(table)
            for message in status.damaged:
                console.print(Text(f"cannot be completed: {message}", style="dim"))
        if any(status.commands for status in found):
            console.print(
                Text("prunebench status --resume prints what completes them", style="dim")
            )
    return capture.get()


def about(job: Progress) -> str:
    """Returns one line on where a job is, or why it has stopped."""
    if job.why:
        return job.why
    place = " ".join(filter(None, [job.stage, job.epoch and f"epoch {job.epoch}"]))
    eta = f"stage ends in {span(job.eta)}" if job.eta is not None else ""
    silent = f"last sign of life {span(job.silent)} ago" if job.silent is not None else ""
    host = f"on {job.host}" if job.host and job.state in ("running", "lost") else ""
    return ", ".join(filter(None, [place, eta, silent, host]))


def span(seconds: float) -> str:
    """Returns a time in its natural unit: 42 s, 12 min, 5 h, 3 d."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def plain(status: Status) -> dict[str, object]:
    """Returns the state as plain values for JSON."""
    return {
        "folder": str(status.folder),
        "jobs": [asdict(job) for job in status.jobs],
        "commands": [["prunebench", *asked.words] for asked in status.commands],
        "damaged": status.damaged,
    }


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="prunebench status",
        description="Shows the progress of sweeps and runs, read from their files.",
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("outputs"))
    parser.add_argument(
        "--watch",
        type=float,
        nargs="?",
        const=5.0,
        metavar="SECONDS",
        help="refresh every SECONDS seconds",
    )
    parser.add_argument("--json", action="store_true", help="everything, for programs")
    parser.add_argument(
        "--resume", action="store_true", help="print the commands that complete unfinished runs"
    )
    parser.add_argument("--go", action="store_true", help="run these commands, one after the other")
    return parser
