"""What a sweep does that is told to stop while workers of joblib's do its jobs: they are told, too.

Without it the process that was called would die of the signal, and leave its workers behind.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TypeVar

from prunebench.interruption import SIGNALS, Interrupted

Found = TypeVar("Found")
#: signals that came
TOLD: list[int] = []


def relay() -> None:
    """Hands on what ends programs, but for Ctrl-C, which a terminal sends to all by itself."""
    for number in SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _tell)


def answered(work: Callable[[], Found]) -> Found:
    """Returns what `work` returns.

    Raises:
        Interrupted: a signal came, whatever the loss of its workers has become for a launcher.
    """
    try:
        return work()
    except (Exception, Interrupted):
        if TOLD:
            raise Interrupted(TOLD[0]) from None
        raise


def _tell(number: int, _frame: FrameType | None) -> None:
    """Handles signal `number`: workers save, and with what they raise then the launcher ends."""
    TOLD.append(number)
    workers = list(_workers())
    for worker in workers:
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGTERM)
    if not workers:
        raise Interrupted(number)


def _workers() -> Iterator[int]:
    """Yields the processes that this one has started, but for those that tidy up behind others."""
    for thread in Path("/proc/self/task").iterdir():
        for child in (thread / "children").read_text().split():
            with suppress(OSError):
                if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes():
                    yield int(child)
