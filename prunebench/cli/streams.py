"""Keeps a run going whatever happens to the terminal or log file that it prints to."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any, TextIO


class Lasting:
    """Wraps a text stream; discards what a closed pipe or a full disk does not take."""

    def __init__(self, stream: TextIO) -> None:
        """Wraps `stream`."""
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes `text`, or discards it."""
        with suppress(OSError, ValueError):  # ValueError: it is closed
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes the stream, or discards what it held."""
        with suppress(OSError, ValueError):
            self._stream.flush()

    def reconfigure(self, **settings: Any) -> None:
        """Changes the encoding, if the stream can."""
        with suppress(OSError, ValueError, AttributeError):  # not every stream encodes
            self._stream.reconfigure(**settings)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        """Returns the wrapped stream's attribute."""
        return getattr(self._stream, name)


def outlive_the_terminal() -> None:
    """Makes sure that no failure to print stops this process.

    It also opens missing standard files, so that files opened later do not get their numbers.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, Lasting):
            setattr(sys, name, Lasting(stream or open(os.devnull, "w", encoding="utf-8")))  # noqa: SIM115
