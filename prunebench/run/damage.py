"""The images of a run that could not be read: named once, and remembered over a kill."""

from __future__ import annotations

from prunebench.datasets import Data
from prunebench.records import write_json
from prunebench.records.jsonfile import read_object
from prunebench.run.folder import RunFolder
from prunebench.tracking.progress import Progress

#: name -> why, of every image that could not be read so far
DAMAGED = "damaged.json"


def watch(data: Data, folder: RunFolder, progress: Progress) -> None:
    """Names each damaged image of `data` the first time it is met, also in ``damaged.json``.

    Those that were met before a kill count as met.
    """
    path = folder.path / DAMAGED
    data.damaged.found.update(read_object(path))

    def tell(name: str, why: str) -> None:
        write_json(path, data.damaged.found)
        progress.note(f"left out, since it cannot be read: {name} ({why})")

    data.damaged.tell = tell
