"""Stops a run when a signal asks for it: the run saves its state and can be resumed.

A cluster announces by a signal, usually SIGTERM, that it will take a job off its node; a person
types Ctrl-C. A training stops at its next step, after writing its checkpoint. Everything else stops
at once, since it is either on disk already or is done again.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: signals that ask a run to stop
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
#: exit code of a run that a signal stopped and that can be resumed (EX_TEMPFAIL of sysexits.h)
START_AGAIN = 75
#: exit code after Ctrl-C, by the convention of shells
BY_HAND = 130


class Interrupted(KeyboardInterrupt):
    """Raised when a signal has asked the run to stop and its state is saved.

    Attributes:
        signal: name of the signal.
        code: exit code for the program.
    """

    def __init__(self, number: int) -> None:
        """Records signal `number`."""
        super().__init__(number)  # joblib pickles it in a worker, by this argument
        self.signal = signal.Signals(number).name
        self.code = BY_HAND if number == signal.SIGINT else START_AGAIN

    def __str__(self) -> str:
        """Returns a phrase for the user."""
        return "interrupted" + (f" by {self.signal}" if self.code == START_AGAIN else "")


class _Request:
    """Holds the current request to stop; one per process, as there is one set of handlers.

    The request stands until `listening` ends, since `Interrupted` can get lost: a library may raise
    an error of its own instead, and Python only prints exceptions in finalizers.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.answered = False
        self.late: int | None = None  # signal that came too late to stop the last run
        self.holders = 0
        self.before: dict[int, object] = {}

    def arrive(self, number: int, _frame: FrameType | None) -> None:
        """Handles signal `number`; a second Ctrl-C stops at once.

        While `Interrupted` is being handled, further signals do not stop the saving: some launchers
        send the signal twice.
        """
        hurry = number == signal.SIGINT == self.signal
        self.signal = number
        if hurry or not (self.holders or isinstance(sys.exception(), Interrupted)):
            stop_if_asked()


_REQUEST = _Request()


@contextmanager
def listening() -> Iterator[None]:
    """Turns the signals that end programs into `Interrupted` inside the block.

    Signals that the process was started to ignore (by nohup, or in the background) stay ignored.
    """
    if threading.current_thread() is not threading.main_thread():  # Python allows it only there
        yield
        return
    found = {number: signal.getsignal(number) for number in SIGNALS}
    _REQUEST.before = {n: handler for n, handler in found.items() if handler != signal.SIG_IGN}
    for number in _REQUEST.before:
        signal.signal(number, _REQUEST.arrive)
    try:
        with answering():
            yield
    finally:
        for number, handler in found.items():
            signal.signal(number, handler)
        _REQUEST.late = None if _REQUEST.answered else _REQUEST.signal
        _REQUEST.signal, _REQUEST.answered, _REQUEST.holders = None, False, 0


@contextmanager
def answering() -> Iterator[None]:
    """Raises `Interrupted` in place of an error that a library made of it inside the block."""
    try:
        yield
    except Exception:
        if _REQUEST.answered:
            stop_if_asked()
        raise


@contextmanager
def held(holds: bool = True) -> Iterator[None]:
    """Postpones signals inside the block, whose code calls `stop_if_asked` after saving."""
    _REQUEST.holders += holds
    try:
        yield
    finally:
        _REQUEST.holders -= holds
    stop_if_asked()


def finish() -> None:
    """Ignores signals from here on: the run is done.

    Raises:
        Interrupted: a signal came before.
    """
    stop_if_asked()
    _REQUEST.holders += 1


def stop_if_late() -> None:
    """Stops before the next run of a sweep if a signal came too late for the last one.

    Raises:
        Interrupted: it did.
    """
    number, _REQUEST.late = _REQUEST.late, None
    if number is not None:
        raise Interrupted(number)


def asked() -> bool:
    """Returns whether a signal has asked the run to stop."""
    return _REQUEST.signal is not None


def stop_if_asked() -> None:
    """Stops the run if a signal has asked for it.

    A launcher's own handler, if there is one, is called instead: submitit's requeues the job, or
    lets it go on until it is killed.

    Raises:
        Interrupted: the signal has no other handler.
    """
    number = _REQUEST.signal
    if number is None:
        return
    before = _REQUEST.before.get(number)
    if callable(before) and before is not signal.default_int_handler:
        _REQUEST.signal = None
        before(number, None)
    else:
        _REQUEST.answered = True
        raise Interrupted(number)
