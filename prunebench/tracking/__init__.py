"""Trackers: mirrors of a run's metrics elsewhere; a tracker can never stop or hold up a run."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self


class TrackedRun(ABC):
    """A run as its tracker sees it, to be used in a ``with`` statement."""

    @abstractmethod
    def log(self, row: Mapping[str, Any]) -> None:
        """Mirrors one row of the metrics log (``stage``, optional ``epoch``, slash names).

        Every attempt at a run hands over all its rows, from the first on, each once.
        """

    @abstractmethod
    def summary(self, values: Mapping[str, Any]) -> None:
        """Mirrors the figures the run ends with."""

    def __enter__(self) -> Self:
        """Returns itself; the run is already under way."""
        return self

    @abstractmethod
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the run."""


class Untracked(TrackedRun):
    """A run that is mirrored nowhere."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Mirrors nothing."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Mirrors nothing."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends nothing."""


@dataclass(frozen=True, kw_only=True)
class Tracker(ABC):
    """Where metrics are mirrored; the schema of ``conf/tracker/*.yaml``."""

    @abstractmethod
    def start(
        self, folder: str | os.PathLike[str], name: str, config: Mapping[str, Any], run_id: str
    ) -> TrackedRun:
        """Opens a run; use it in a ``with`` statement.

        Args:
            folder: the run's folder; nothing is written outside it.
            name: shown to people.
            config: resolved config, plain values.
            run_id: the same for every attempt at the same config and seed.
        """


@dataclass(frozen=True, kw_only=True)
class NoTracker(Tracker):
    """Mirrors nothing."""

    def start(
        self, folder: str | os.PathLike[str], name: str, config: Mapping[str, Any], run_id: str
    ) -> TrackedRun:
        """Returns a run that mirrors nothing."""
        return Untracked()
