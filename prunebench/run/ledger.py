"""Records the finished stages of a run, one file each, so that a killed run can go on.

This is the only state a resumption uses. A finished stage is never computed again; the stage that
was cut off continues from its training checkpoint, or starts over without one. Later stages always
work with what was read back from disk, whether it was written just now or before a kill: that is
why a resumed run ends bit for bit where it would have ended.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from prunebench.checkpoints import Checkpoint, load, save
from prunebench.interruption import stop_if_asked


class Ledger:
    """Keeps the finished stages of one run, in ``<folder>/stages``.

    Attributes:
        folder: of the stages.
        every_seconds: between two training checkpoints.
        under_way: name of the stage begun last.
        seconds: stage -> seconds it took.
    """

    def __init__(self, folder: Path, *, every_seconds: float) -> None:
        """Sets the folder; reads and writes nothing yet."""
        self.folder = folder / "stages"
        self.every_seconds = every_seconds
        self.under_way = "start"
        self.seconds: dict[str, float] = {}

    def do(self, name: str, compute: Callable[[Checkpoint], dict[str, Any]]) -> dict[str, Any]:
        """Returns the result of stage `name`, computed now or by an earlier attempt.

        Args:
            name: unique within the run.
            compute: returns plain values and tensors. It is passed the checkpoint from which an
                unfinished training goes on. Its result may have ``seconds`` of its own, as that of
                a training over several attempts does; they replace the time measured here.

        Raises:
            CheckpointError: the stage's file is damaged.
            Interrupted: the run was asked to stop during the stage.
        """
        self.under_way = name
        path = self.folder / f"{name}.pt"
        partial = self.folder / f"{name}.partial.pt"
        if not path.exists():
            start = perf_counter()
            result = compute(Checkpoint(partial, every_seconds=self.every_seconds))
            stop_if_asked()  # an interrupted computation may have a wrong result: do not save it
            save(path, {"seconds": perf_counter() - start, **result})
        partial.unlink(missing_ok=True)
        done = load(path)
        self.seconds[name] = float(done["seconds"])
        return done

    def clear(self) -> None:
        """Removes all stages; a finished run needs them no longer."""
        shutil.rmtree(self.folder, ignore_errors=True)
