"""Passes signals on to joblib's workers, so that stopping a sweep stops its jobs, too.

Otherwise the main process would die of the signal and leave its workers behind.
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
#: numbers of the signals received
RECEIVED: list[int] = []


def relay() -> None:
    """Handles signals that would end this process, except Ctrl-C, which a terminal sends to all."""
    for number in SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _stop_workers)


def answered(work: Callable[[], Found]) -> Found:
    """Returns the result of `work`.

    Raises:
        Interrupted: a signal was received, whatever error the launcher made of losing its workers.
    """
    try:
        return work()
    except (Exception, Interrupted):
        if RECEIVED:
            raise Interrupted(RECEIVED[0]) from None
        raise


def _stop_workers(number: int, _frame: FrameType | None) -> None:
    """Handles signal `number`: tells the workers, which save and stop, and so end the launcher."""
    RECEIVED.append(number)
    workers = list(_workers())
    for worker in workers:
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGTERM)
    if not workers:
        raise Interrupted(number)


def _workers() -> Iterator[int]:
    """Yields the ids of this process's children, except joblib's resource trackers."""
    for thread in Path("/proc/self/task").iterdir():
        for child in (thread / "children").read_text().split():
            with suppress(OSError):
                if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes():
                    yield int(child)
