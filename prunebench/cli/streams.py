"""What a run prints to: whatever becomes of the terminal or the log, the run goes on."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any, TextIO


class Lasting:
    """A text stream that loses what its file does not take: a closed pipe, a full disk."""

    def __init__(self, stream: TextIO) -> None:
        """Writes to `stream` as long as that goes."""
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes `text`, or loses it."""
        with suppress(OSError, ValueError):  # ValueError: it is closed
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Hands on what is written, or loses it."""
        with suppress(OSError, ValueError):
            self._stream.flush()

    def reconfigure(self, **settings: Any) -> None:
        """Changes how text is encoded, or leaves it."""
        with suppress(OSError, ValueError, AttributeError):  # not every stream encodes
            self._stream.reconfigure(**settings)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        """Anything else is the stream's own."""
        return getattr(self._stream, name)


def outlive_the_terminal() -> None:
    """Lets nothing that is printed stop this process.

    Where it was started without standard files, the next it opens must not take their numbers.
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
