"""A run's mirror in another program, kept at arm's length: whatever happens, the run goes on."""

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

# Generous for a busy machine, short beside any run. The program's own limits come first.
OPEN_SECONDS, LOG_SECONDS, CLOSE_SECONDS = 90.0, 20.0, 90.0


class Mirror(TrackedRun):
    """Hands curves and outcome to a program; what goes wrong is said once, and ends it."""

    def __init__(self, program: str, open_run: Callable[[], None]) -> None:
        """Opens the run by `open_run`; messages call it `program`."""
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
        """Mirrors what the run ends with."""
        self._guard(lambda: self._conclude(outcome, self._rows), CLOSE_SECONDS)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Ends the run; also where something went wrong, else it would get the next one's rows."""
        close = partial(self._close, failed=kind is not None)
        if not self._guard(close, CLOSE_SECONDS, always=True):
            self._leave_behind()

    @abstractmethod
    def _write(self, values: Mapping[str, float], number: int) -> None:
        """Writes one point of each curve, from row `number` of the run."""

    @abstractmethod
    def _conclude(self, outcome: Outcome, number: int) -> None:
        """Writes what the run ends with, as row `number`."""

    @abstractmethod
    def _close(self, *, failed: bool) -> None:
        """Ends the run, if it was ever opened."""

    def _leave_behind(self) -> None:
        """Sees to it that a program which does not answer cannot hold this process at its end."""
        return

    def _guard(self, call: Callable[[], object], seconds: float, *, always: bool = False) -> bool:
        """Carries out `call` beside the run, waits at most `seconds`, and reports one failure.

        The call has a thread of its own so that it can be left behind, and so that an exception
        raised by a signal handler (a cluster's requeue) reaches the run instead of this guard.

        Returns:
            Whether it has come to an end.
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
    """Returns `path` as one would type it in a command, from here where it lies below."""
    here = Path.cwd()
    absolute = path.absolute()
    return shlex.quote(str(absolute.relative_to(here) if here in absolute.parents else absolute))
