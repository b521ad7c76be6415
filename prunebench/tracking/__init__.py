"""Trackers: mirrors of a run's metrics elsewhere; a tracker can never stop or hold up a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Which run a mirror is of.

    Attributes:
        folder: the run's; nothing is written outside it.
        title: shown to people; tells it from other runs.
        config: resolved, plain values.
        choices: group -> name of the option chosen.
        identity: the same for every attempt at the same config and seed.
        sweep: that it belongs to; "" if none.
        note: tells the user a line.
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
    """What a run ends with.

    Attributes:
        figures: by name.
        layers: the table of layers, each with the same columns.
        texts: file name -> its text.
        files: that the run leaves.
        plots: draws them when asked; name -> PNG.
    """

    figures: Mapping[str, float]
    layers: Sequence[Mapping[str, Any]] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[Path] = ()
    plots: Callable[[], Mapping[str, bytes]] = dict


class TrackedRun(ABC):
    """A run as its tracker sees it, to be used in a ``with`` statement.

    Attributes:
        lost: which program did not take all, and why; "" where it did.
    """

    lost: str = ""

    @abstractmethod
    def log(self, row: Mapping[str, Any]) -> None:
        """Mirrors one row of the metrics log (``stage``, optional ``epoch``, slash names).

        Every attempt at a run hands over all its rows, from the first on, each once.
        """

    @abstractmethod
    def conclude(self, outcome: Outcome) -> None:
        """Mirrors what the run ends with."""

    def __enter__(self) -> Self:
        """Returns itself; the run is already under way."""
        return self

    @abstractmethod
    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Ends the run; `kind` is of the exception that ends it, if one does."""


class Untracked(TrackedRun):
    """A run that is mirrored nowhere."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Mirrors nothing."""

    def conclude(self, outcome: Outcome) -> None:
        """Mirrors nothing."""

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Ends nothing."""


@dataclass(frozen=True, kw_only=True)
class Tracker(ABC):
    """Where metrics are mirrored; the schema of ``conf/tracker/*.yaml``."""

    @abstractmethod
    def start(self, subject: Subject) -> TrackedRun:
        """Opens a run; use it in a ``with`` statement."""


@dataclass(frozen=True, kw_only=True)
class NoTracker(Tracker):
    """Mirrors nothing."""

    def start(self, subject: Subject) -> TrackedRun:
        """Returns a run that mirrors nothing."""
        return Untracked()
