"""Shows a run's progress: a bar with the time left on a terminal, rare plain lines in a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Shows the user what a run is doing. Names are printed as they are, never as markup."""

    def __init__(
        self, stream: TextIO | None = None, *, every_seconds: float = 60.0, quiet: bool = False
    ) -> None:
        """Writes to `stream` (standard error by default).

        Args:
            stream: a terminal gets a bar, anything else plain lines.
            every_seconds: least time between two plain lines within an epoch.
            quiet: print nothing at all.
        """
        self.every_seconds = every_seconds
        self._console = Console(file=stream or sys.stderr, quiet=quiet, emoji=False)

    def note(self, text: str) -> None:
        """Prints one line about the run, such as the stage that begins."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def task(self, stage: str, total_steps: int, *, done: int = 0) -> Iterator[Task]:
        """Shows a stage of `total_steps`, `done` of which an earlier process did."""
        bar = self._bar() if self._console.is_terminal and not self._console.quiet else None
        task = Task(self, stage, total_steps, done, bar)
        if bar is None:
            yield task
            return
        with bar:
            yield task

    def _bar(self) -> Bar:
        """Returns a bar that prints brackets in names as they are, and vanishes after the stage."""
        return Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("time left", markup=False),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )


class Task:
    """Tracks one stage."""

    def __init__(
        self, progress: Progress, stage: str, total: int, done: int, bar: Bar | None
    ) -> None:
        """Starts the clock."""
        self._progress = progress
        self._stage = stage
        self._total = total
        self._done = self._first = done
        self._began = self._told = time.monotonic()
        self._bar = bar
        self._id = bar.add_task(stage, total=total, completed=done) if bar else None

    def advance(self, steps: int = 1) -> None:
        """Records that `steps` more are done."""
        self._done += steps
        if self._bar is not None and self._id is not None:
            self._bar.advance(self._id, steps)
        elif time.monotonic() - self._told >= self._progress.every_seconds:
            share = 100 * self._done / max(1, self._total)
            self._say(f"step {self._done}/{self._total} ({share:.0f} %)")

    def epoch(self, row: Mapping[str, object]) -> None:
        """Prints one line at the end of an epoch, with the figures of `row` in order."""
        self._say("  ".join(f"{key} {_short(value)}" for key, value in row.items()))

    def _say(self, text: str) -> None:
        """Prints one line, with the time left."""
        self._told = time.monotonic()
        self._progress.note(f"{self._stage}  {text}{self._time_left()}")

    def _time_left(self) -> str:
        """Returns the time left at this process's own pace; "" if nothing is left or known."""
        steps = self._done - self._first
        if not steps or self._done >= self._total:
            return ""
        seconds = (time.monotonic() - self._began) / steps * (self._total - self._done)
        return f"  time left {duration(seconds)}"


def duration(seconds: float) -> str:
    """Returns a readable duration: 42 s, 12 min, 3 h 05 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _short(value: object) -> str:
    """Returns a float with at most four digits, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
