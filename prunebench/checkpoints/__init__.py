"""Checkpoint files that are always whole: written at once, with a digest.

`slimmed` stores the slim network of a run, `own` that of a user's own network; `foreign` reads
weights from other people's files.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from prunebench.archives import bomb_in
from prunebench.errors import CheckpointError
from prunebench.interruption import asked, stop_if_asked
from prunebench.records.jsonfile import write_bytes

# A checkpoint is an ordinary torch file, a zip archive, with its digest as the archive's comment:
# torch.load reads it, and no kill can separate the two.
_LABEL = b"prunebench sha256 "
_COMMENT_BYTES = len(_LABEL) + 64


class Checkpoint:
    """The checkpoint file of a stage, and how often it is saved."""

    def __init__(self, path: Path, every_seconds: float) -> None:
        """Stores path and interval; nothing is read or written yet."""
        self.path = path
        self.every_seconds = every_seconds
        self._saved = time.monotonic()

    def due(self) -> bool:
        """Whether the last save was `every_seconds` ago, or the run is asked to stop."""
        return asked() or time.monotonic() - self._saved >= self.every_seconds

    def save(self, state: Mapping[str, Any]) -> None:
        """Replaces the file by `state`; then stops the run if it is asked to stop."""
        save(self.path, state)
        self._saved = time.monotonic()
        stop_if_asked()

    def load(self) -> dict[str, Any] | None:
        """Returns the state, or None if there is no file.

        Raises:
            CheckpointError: the file is corrupt.
        """
        if not self.path.exists():
            return None
        try:
            return load(self.path)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; delete it to start anew") from None


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Writes `state` so that the file is at any moment either the whole old or the whole new one.

    Args:
        path: the file; its folder is made if needed.
        state: tensors, numbers, strings, None, and lists and dicts of them.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    archive = buffer.getvalue()
    comment = _LABEL + hashlib.sha256(archive).hexdigest().encode()
    write_bytes(path, archive[:-2] + _COMMENT_BYTES.to_bytes(2, "little") + comment)


def load(path: Path) -> dict[str, Any]:
    """Returns the state that `save` wrote, with all tensors on the CPU.

    Raises:
        CheckpointError: the file is missing, damaged, or was not written by `save`.
    """
    raw = read(path)
    body, comment = raw[:-_COMMENT_BYTES], raw[-_COMMENT_BYTES:]
    if not comment.startswith(_LABEL) or len(body) < 2:
        raise CheckpointError(f"{path} is cut short, or no checkpoint of prunebench")
    archive = body[:-2] + b"\0\0"
    if hashlib.sha256(archive).hexdigest().encode() != comment[len(_LABEL) :]:
        raise CheckpointError(f"{path} is damaged: its digest does not match")
    require_modest(archive, path)
    try:
        state: dict[str, Any] = torch.load(
            io.BytesIO(archive), map_location="cpu", weights_only=True
        )
    except pickle.UnpicklingError:
        raise CheckpointError(f"{path} holds more than tensors, numbers and strings") from None
    return state


def require_modest(archive: bytes, path: Path) -> None:
    """Raises CheckpointError if `archive`, the content of the file at `path`, is a zip bomb."""
    if told := bomb_in(io.BytesIO(archive)):
        raise CheckpointError(f"{path} {told}, too much for a checkpoint; it was not read")


def read(path: Path) -> bytes:
    """Returns all bytes of a file.

    Raises:
        CheckpointError: it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {path} does not exist") from None
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror}") from None
