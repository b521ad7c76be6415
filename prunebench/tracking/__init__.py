"""Mirrors a run's metrics in other programs; a tracker can never stop or delay a run for long.

A `Tracker` is an option that starts a `TrackedRun`. `mirror` keeps failures of the program away
from the run; `wandb` and `tensorboard` are the programs. `progress` is what the user sees.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Describes the run to be mirrored.

    Attributes:
        folder: of the run; nothing is written outside it.
        title: shown to people, who tell runs apart by it.
        config: resolved, plain values.
        choices: group -> name of the option chosen.
        identity: the same for every attempt at the same config and seed.
        sweep: name of the run's sweep; "" if none.
        note: shows the user a line.
    """

    folder: Path
    title: str
    config: Mapping[str, Any]
    choices: Mapping[str, str]
    identity: str
    sweep: str
    note: Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Holds the results of a finished run.

    Attributes:
        figures: name -> value.
        layers: rows of the table of layers, each with the same columns.
        texts: file name -> its text.
        files: that the run leaves.
        plots: called to draw them; returns name -> PNG.
    """

    figures: Mapping[str, float]
    layers: Sequence[Mapping[str, Any]] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[Path] = ()
    plots: Callable[[], Mapping[str, bytes]] = dict


class TrackedRun(ABC):
    """Mirrors one run; use it in a ``with`` statement.

    Attributes:
        lost: which program lacks a part of the run, and why; "" if none does.
    """

    lost: str = ""

    @abstractmethod
    def log(self, row: Mapping[str, Any]) -> None:
        """Mirrors one row of the metrics log (``stage``, optional ``epoch``, slash names).

        Every attempt at a run passes all of the run's rows, from the first on, each once.
        """

    @abstractmethod
    def conclude(self, outcome: Outcome) -> None:
        """Mirrors the results of the run."""

    def __enter__(self) -> Self:
        """Returns itself; the run has started already."""
        return self

    @abstractmethod
    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Ends the run; `kind` is the class of the exception that ended it, None without one."""


class Untracked(TrackedRun):
    """Mirrors nothing."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Does nothing."""

    def conclude(self, outcome: Outcome) -> None:
        """Does nothing."""

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Does nothing."""


@dataclass(frozen=True, kw_only=True)
class Tracker(ABC):
    """Says where metrics are mirrored; the schema of ``conf/tracker/*.yaml``."""

    @abstractmethod
    def start(self, subject: Subject) -> TrackedRun:
        """Starts to mirror a run; use the result in a ``with`` statement."""


@dataclass(frozen=True, kw_only=True)
class NoTracker(Tracker):
    """Mirrors nothing."""

    def start(self, subject: Subject) -> TrackedRun:
        """Returns a `TrackedRun` that mirrors nothing."""
        return Untracked()
