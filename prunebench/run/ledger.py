"""What a run has already done: one file per finished stage, so that a killed run can go on.

The one home of a run's state. A stage that finished is never computed again; the stage in which
the run was killed goes on from its training checkpoint, or starts anew when it has none. What
follows a stage always works with what lies on disk, whether it was written just now or before a
kill: that is why a resumed run ends bit for bit where it would have ended.
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
    """The finished stages of one run, in ``<folder>/stages``.

    Attributes:
        folder: of the stages.
        every_seconds: from one training checkpoint to the next.
        under_way: name of the stage begun last.
        seconds: stage -> seconds it took.
    """

    def __init__(self, folder: Path, *, every_seconds: float) -> None:
        """Opens the stages below `folder`; nothing is read or written yet."""
        self.folder = folder / "stages"
        self.every_seconds = every_seconds
        self.under_way = "start"
        self.seconds: dict[str, float] = {}

    def do(self, name: str, compute: Callable[[Checkpoint], dict[str, Any]]) -> dict[str, Any]:
        """Returns the result of stage `name`, computed now or by the run that was killed.

        Args:
            name: unique within the run.
            compute: returns plain values and tensors; it is given the checkpoint from which an
                unfinished training goes on. ``seconds`` among them, where a training counts its
                own over several attempts, is taken for the stage's.

        Raises:
            CheckpointError: the stage's file is damaged.
            Interrupted: the run was asked to stop while it computed.
        """
        self.under_way = name
        path = self.folder / f"{name}.pt"
        partial = self.folder / f"{name}.partial.pt"
        if not path.exists():
            start = perf_counter()
            result = compute(Checkpoint(partial, every_seconds=self.every_seconds))
            stop_if_asked()  # it may have gone another way because it was
            save(path, {"seconds": perf_counter() - start, **result})
        partial.unlink(missing_ok=True)
        done = load(path)
        self.seconds[name] = float(done["seconds"])
        return done

    def clear(self) -> None:
        """Removes what only a resumption would have needed."""
        shutil.rmtree(self.folder, ignore_errors=True)
