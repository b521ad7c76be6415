"""What a run has already done: one file per finished stage, so that a killed run can go on.

The one home of a run's state. A stage that finished is never computed again; the stage in which
the run was killed goes on from its training checkpoint, or starts anew when it has none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prunebench.checkpoints import Checkpoint, load, save


class Stages:
    """The finished stages of one run, in ``<folder>/stages``."""

    def __init__(self, folder: Path, *, every_seconds: float) -> None:
        """Opens the stages below `folder`; training checkpoints come every `every_seconds`."""
        self.folder = folder / "stages"
        self.every_seconds = every_seconds
        self.folder.mkdir(parents=True, exist_ok=True)

    def do(self, name: str, compute: Callable[[Checkpoint], dict[str, Any]]) -> dict[str, Any]:
        """Returns the result of stage `name`, computed now or by the run that was killed.

        Args:
            name: unique within the run.
            compute: returns plain values and tensors; it is given the checkpoint from which an
                unfinished training goes on.

        Raises:
            CheckpointError: the stage's file is damaged.
        """
        path = self.folder / f"{name}.pt"
        partial = self.folder / f"{name}.partial.pt"
        if not path.exists():
            save(path, compute(Checkpoint(partial, every_seconds=self.every_seconds)))
        partial.unlink(missing_ok=True)
        return load(path)

    @property
    def started(self) -> bool:
        """Whether an earlier attempt left anything here."""
        return any(self.folder.iterdir())

    def clear(self) -> None:
        """Removes what only a resumption would have needed."""
        for path in self.folder.iterdir():
            path.unlink()
        self.folder.rmdir()
