"""Locks folders with flock; on file systems without it, with marker files and a warning."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from filelock import FileLock
from filelock import Timeout as Timeout

log = logging.getLogger(__name__)


def locked(
    path: Path, note: Callable[[str], None] = log.warning, *, timeout: float = -1
) -> AbstractContextManager[object]:
    """Returns the lock at `path`, held; warns if it is a marker file, which a kill leaves behind.

    Args:
        path: of the lock.
        note: shows the user a line.
        timeout: seconds to wait for it; -1 = for ever.

    Raises:
        Timeout: another process holds it.
    """
    lock = FileLock(path)
    with warnings.catch_warnings(action="ignore"):  # filelock's own warning; ours follows
        held = lock.acquire(timeout=timeout)
    if hasattr(lock, "pid"):  # a marker file names its holder, a lock by flock does not
        note(
            f"this file system has no flock: if the process is killed, delete {path} before a "
            "process on another machine continues"
        )
    return held


def is_held(path: Path) -> bool:
    """Returns whether a process holds the lock at `path`, as far as this machine can tell."""
    if not path.exists():
        return False
    try:
        with locked(path, lambda line: None, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a folder of somebody else's, in which this process may not lock
        return False
