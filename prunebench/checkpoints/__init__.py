"""Checkpoints that are whole or absent."""

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

# A checkpoint is an ordinary torch file, a zip archive, whose digest is the archive's comment:
# torch.load reads it, and no kill can part the two.
_LABEL = b"prunebench sha256 "
_COMMENT_BYTES = len(_LABEL) + 64


class Checkpoint:
    """Where a stage leaves its state, and how often."""

    def __init__(self, path: Path, every_seconds: float) -> None:
        """Names the file; nothing is read or written yet."""
        self.path = path
        self.every_seconds = every_seconds
        self._saved = time.monotonic()

    def due(self) -> bool:
        """Whether the last save is `every_seconds` ago, or the run is asked to stop."""
        return asked() or time.monotonic() - self._saved >= self.every_seconds

    def save(self, state: Mapping[str, Any]) -> None:
        """Replaces the file by `state`; a run that is asked to stop stops then."""
        save(self.path, state)
        self._saved = time.monotonic()
        stop_if_asked()

    def load(self) -> dict[str, Any] | None:
        """Returns the state, or None where there is no file.

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
    """Writes `state` so that the file is at every moment the old one or the new one, whole.

    Args:
        path: its folder is made if need be.
        state: tensors, numbers, strings, None, and lists and dicts of them.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    archive = buffer.getvalue()
    comment = _LABEL + hashlib.sha256(archive).hexdigest().encode()
    write_bytes(path, archive[:-2] + _COMMENT_BYTES.to_bytes(2, "little") + comment)


def load(path: Path) -> dict[str, Any]:
    """Returns what `save` wrote, with all tensors on the CPU.

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
    """Raises CheckpointError where the file at `path`, which holds `archive`, is a zip bomb."""
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
