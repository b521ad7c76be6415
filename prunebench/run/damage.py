"""Reports images that cannot be read: each one once per run, also across a resumption."""

from __future__ import annotations

from prunebench.datasets import Data
from prunebench.records import write_json
from prunebench.records.jsonfile import read_object
from prunebench.run.folder import RunFolder
from prunebench.tracking.progress import Progress

#: file in the run's folder: image name -> why it cannot be read
DAMAGED = "damaged.json"


def watch(data: Data, folder: RunFolder, progress: Progress) -> None:
    """Makes `data` report each damaged image when first met, and add it to ``damaged.json``.

    Images that an earlier attempt of the run reported are not reported again.
    """
    path = folder.path / DAMAGED
    data.damaged.found.update(read_object(path))

    def tell(name: str, why: str) -> None:
        write_json(path, data.damaged.found)
        progress.note(f"left out, since it cannot be read: {name} ({why})")

    data.damaged.tell = tell
