"""Mirrors runs in TensorBoard, as event files in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from prunebench.errors import require
from prunebench.tracking import Outcome, Subject, TrackedRun, Tracker
from prunebench.tracking.curves import AXIS
from prunebench.tracking.mirror import Mirror, typed

#: makes a line preformatted in Markdown
INDENT = " " * 4


@dataclass(frozen=True, kw_only=True)
class TensorBoardTracker(Tracker):
    """Mirrors runs in TensorBoard; the files lie in ``<run folder>/tensorboard``."""

    def __post_init__(self) -> None:
        """Checks that the package is installed."""
        require(
            find_spec("tensorboard") is not None,
            "tracker=tensorboard needs a package: pip install 'prunebench[tensorboard]'",
        )

    def start(self, subject: Subject) -> TrackedRun:
        """Starts to write the run's event files."""
        return TensorBoardRun(subject)


class TensorBoardRun(Mirror):
    """Writes the event files of one run."""

    def __init__(self, subject: Subject) -> None:
        """Opens the run; replaces an earlier attempt's files, since all rows are passed again."""
        self._subject = subject
        self._folder = subject.folder / "tensorboard"
        self._writer: Any = None
        super().__init__("tensorboard", self._open)

    def _open(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        for path in self._folder.glob("events.out.*"):
            path.unlink()
        self._writer = SummaryWriter(str(self._folder))
        choices = self._subject.choices.items()
        lines = [self._subject.title, "", *(f"{INDENT}{key}={value}" for key, value in choices)]
        self._writer.add_text("run", "\n".join(lines))

    def _write(self, values: Mapping[str, float], number: int) -> None:
        for name, value in values.items():
            if name != AXIS:
                self._writer.add_scalar(name, value, int(values[AXIS]))

    def _conclude(self, outcome: Outcome, number: int) -> None:
        for name, value in outcome.figures.items():
            self._writer.add_scalar(f"summary/{name.replace('/', '_')}", value, 0)
        if outcome.layers:
            rows = [list(outcome.layers[0]), *(list(row.values()) for row in outcome.layers)]
            lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
            lines.insert(1, "|---" * len(rows[0]) + "|")
            self._writer.add_text("layers", "\n".join(lines))

    def _close(self, *, failed: bool) -> None:
        if self._writer is not None:
            self._writer.close()
            self._subject.note(f"tensorboard: tensorboard --logdir {typed(self._folder)}")
