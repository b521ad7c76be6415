"""Keeps failures and delays of a tracking program away from the run that it mirrors."""

from __future__ import annotations

import logging
import shlex
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from prunebench.tracking import Outcome, TrackedRun
from prunebench.tracking.curves import Curves

log = logging.getLogger(__name__)

# Generous for a busy machine, short compared with any run, longer than the program's own limits.
OPEN_SECONDS, LOG_SECONDS, CLOSE_SECONDS = 90.0, 20.0, 90.0


class Mirror(TrackedRun):
    """Passes curves and results to a program; reports the first failure and then stops."""

    def __init__(self, program: str, open_run: Callable[[], None]) -> None:
        """Opens the run by calling `open_run`; `program` is the name in messages."""
        self._program = program
        self._curves = Curves()
        self._rows = 0
        self._on = True
        self._guard(open_run, OPEN_SECONDS)

    def log(self, row: Mapping[str, Any]) -> None:
        """Mirrors `row` as the next point of its curves."""
        number, self._rows = self._rows, self._rows + 1
        values = self._curves.values(row)
        self._guard(lambda: self._write(values, number), LOG_SECONDS)

    def conclude(self, outcome: Outcome) -> None:
        """Mirrors the results of the run."""
        self._guard(lambda: self._conclude(outcome, self._rows), CLOSE_SECONDS)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Ends the run, even after a failure: otherwise it would receive the next run's rows."""
        close = partial(self._close, failed=kind is not None)
        if not self._guard(close, CLOSE_SECONDS, always=True):
            self._abandon()

    @abstractmethod
    def _write(self, values: Mapping[str, float], number: int) -> None:
        """Writes one point of each curve; `number` is that of the row in the run."""

    @abstractmethod
    def _conclude(self, outcome: Outcome, number: int) -> None:
        """Writes the results of the run, as row `number`."""

    @abstractmethod
    def _close(self, *, failed: bool) -> None:
        """Ends the run, if it was opened."""

    def _abandon(self) -> None:
        """Makes sure that a program which hangs cannot keep this process from ending."""
        return

    def _guard(self, call: Callable[[], object], seconds: float, *, always: bool = False) -> bool:
        """Makes `call` in a thread, waits at most `seconds`, and gives up mirroring if it fails.

        The thread can be left behind, and an exception from a signal handler (a cluster's requeue)
        reaches the run instead of this guard.

        Returns:
            Whether the call has ended.
        """
        if not (self._on or always):
            return True
        failure: list[BaseException] = []

        def attempt() -> None:
            try:
                call()
            except BaseException as error:  # noqa: BLE001 - a mirror must not stop the run
                failure.append(error)

        thread = threading.Thread(target=attempt, name=f"{self._program}-call", daemon=True)
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            self._give_up(f"no answer within {seconds:g} s")
        elif failure:
            first = str(failure[0]).strip().partition("\n")[0]
            self._give_up(f"{type(failure[0]).__name__}: {first}")
        return not thread.is_alive()

    def _give_up(self, reason: str) -> None:
        if self._on:
            log.warning("%s: tracking is off for the rest of this run (%s)", self._program, reason)
            self.lost = f"{self._program} ({reason})"
        self._on = False


def typed(path: Path) -> str:
    """Returns `path` as one would type it in a command, relative if it lies below this folder."""
    here = Path.cwd()
    absolute = path.absolute()
    return shlex.quote(str(absolute.relative_to(here) if here in absolute.parents else absolute))
