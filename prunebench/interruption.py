"""A run that a signal asks to stop: it saves what it has, and says how to go on.

Clusters announce that a job will be taken off its node by a signal, SIGTERM as a rule; a person
types Ctrl-C. A training answers at its next step, where its checkpoint is written first; whatever
else a run does stops at once, for it is either on disk already or done again.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: what is taken for a request to stop
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
#: exit code of a run that was asked to stop and may be started again (EX_TEMPFAIL of sysexits.h)
START_AGAIN = 75
#: exit code after Ctrl-C, as shells have it
BY_HAND = 130


class Interrupted(KeyboardInterrupt):
    """A signal asked the run to stop, and what had to be saved is saved.

    Attributes:
        signal: name of the signal.
        code: the exit code of the program.
    """

    def __init__(self, number: int) -> None:
        """Names signal `number`."""
        super().__init__(number)  # all that pickle needs, on the way from a worker of joblib's
        self.signal = signal.Signals(number).name
        self.code = BY_HAND if number == signal.SIGINT else START_AGAIN

    def __str__(self) -> str:
        """For people."""
        return "interrupted" + (f" by {self.signal}" if self.code == START_AGAIN else "")


class _Request:
    """The request under way; there is one, as a process has one set of signal handlers.

    It stands until the end, for `Interrupted` can get lost: a library raises an error of its own in
    its place, and what arises in a finalizer Python tells and drops.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.answered = False
        self.late: int | None = None  # signal that came when the last was done
        self.holders = 0
        self.before: dict[int, object] = {}

    def arrive(self, number: int, _frame: FrameType | None) -> None:
        """Handles signal `number`; Ctrl-C a second time does not wait.

        What stops already is left to save what it has: some who end a program tell it twice.
        """
        hurry = number == signal.SIGINT == self.signal
        self.signal = number
        if hurry or not (self.holders or isinstance(sys.exception(), Interrupted)):
            stop_if_asked()


_REQUEST = _Request()


@contextmanager
def listening() -> Iterator[None]:
    """Turns the signals that end programs into `Interrupted` inside the block.

    A signal that the process was started to ignore (nohup, a job in the background) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():  # only there Python takes them
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
    """Raises `Interrupted` from the block in the place of an error that it has become there."""
    try:
        yield
    except Exception:
        if _REQUEST.answered:
            stop_if_asked()
        raise


@contextmanager
def held(holds: bool = True) -> Iterator[None]:
    """Lets a signal wait inside the block, whose code calls `stop_if_asked` where all is saved."""
    _REQUEST.holders += holds
    try:
        yield
    finally:
        _REQUEST.holders -= holds
    stop_if_asked()


def finish() -> None:
    """Lets what follows come to its end: a signal from here on is too late, and stops nothing.

    Raises:
        Interrupted: one came before.
    """
    stop_if_asked()
    _REQUEST.holders += 1


def stop_if_late() -> None:
    """Stops in front of a sweep's next run.

    Raises:
        Interrupted: a signal came when the run before it, in this process, was done.
    """
    number, _REQUEST.late = _REQUEST.late, None
    if number is not None:
        raise Interrupted(number)


def asked() -> bool:
    """Whether a signal waits for an answer."""
    return _REQUEST.signal is not None


def stop_if_asked() -> None:
    """Stops the run if a signal waits for an answer.

    A launcher that handles the signal itself (submitit puts the job back into the queue, or goes
    on until it is killed) is asked first, and has the last word.

    Raises:
        Interrupted: nobody but us handles the signal.
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
