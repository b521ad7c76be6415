"""Checkpoints that are whole or absent, and weights from other people's files."""

from __future__ import annotations

import hashlib
import io
import pickle
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from torch import Tensor, nn

from prunebench.channels.gather import GatherChannels
from prunebench.errors import CheckpointError
from prunebench.records.jsonfile import write_bytes

# A checkpoint is an ordinary torch file, a zip archive, whose digest is the archive's comment:
# torch.load reads it, and no kill can part the two.
_LABEL = b"prunebench sha256 "
_COMMENT_BYTES = len(_LABEL) + 64
_WRAPPERS = ("state_dict", "net_state_dict", "model_state_dict", "model", "network", "net")
_PREFIXES = ("module.", "_orig_mod.")


class Checkpoint:
    """Where a stage leaves its state, and how often."""

    def __init__(self, path: Path, every_seconds: float) -> None:
        """Names the file; nothing is read or written yet."""
        self.path = path
        self.every_seconds = every_seconds
        self._saved = time.monotonic()

    def due(self) -> bool:
        """Whether the last save is `every_seconds` ago."""
        return time.monotonic() - self._saved >= self.every_seconds

    def save(self, state: Mapping[str, Any]) -> None:
        """Replaces the file by `state`."""
        save(self.path, state)
        self._saved = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """Returns the state, or None where there is no file.

        Raises:
            CheckpointError: the file is corrupt.
        """
        return load(self.path) if self.path.exists() else None

    def remove(self) -> None:
        """Removes the file, if there is one."""
        self.path.unlink(missing_ok=True)


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
    raw = _read(path)
    body, comment = raw[:-_COMMENT_BYTES], raw[-_COMMENT_BYTES:]
    if not comment.startswith(_LABEL) or len(body) < 2:
        raise CheckpointError(f"{path} is cut short or no prunebench checkpoint; delete it")
    archive = body[:-2] + b"\0\0"
    if hashlib.sha256(archive).hexdigest().encode() != comment[len(_LABEL) :]:
        raise CheckpointError(f"{path} is damaged: its digest does not match; delete it")
    state: dict[str, Any] = torch.load(io.BytesIO(archive), map_location="cpu", weights_only=True)
    return state


def _read(path: Path) -> bytes:
    """All bytes of a file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {path} does not exist") from None
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror}") from None


def load_weights(network: nn.Module, path: Path) -> None:
    """Loads a user's weights into `network`, in place, whatever wrapping they come in.

    Known: a state dict, alone or under one of the usual keys; a ``module.`` prefix; .safetensors.
    May be missing from the file: the index of a `GatherChannels`, which is wiring and no weight,
    and ``num_batches_tracked``. No code in the file is ever run.

    Raises:
        CheckpointError: the file cannot be read safely, or does not fit the network.
    """
    weights = _without_prefix(_state_dict(_open(path), path))
    own = network.state_dict()
    optional = {name for name in own if name.endswith("num_batches_tracked")} | {
        f"{name}.index"
        for name, module in network.named_modules()
        if isinstance(module, GatherChannels)
    }
    lacking = [name for name in own if name not in weights and name not in optional]
    foreign = [name for name in weights if name not in own]
    if lacking or foreign:
        parts = [f"lacks {len(lacking)}, first '{lacking[0]}'"] if lacking else []
        parts += [f"has {len(foreign)} more, first '{foreign[0]}'"] if foreign else []
        raise CheckpointError(f"{path} is of another network: it {' and '.join(parts)}")
    wrong = [name for name in weights if weights[name].shape != own[name].shape]
    if wrong:
        name = wrong[0]
        raise CheckpointError(
            f"{path} does not fit: {len(wrong)} of {len(own)} tensors differ in shape, first "
            f"'{name}': {list(weights[name].shape)} in the file, {list(own[name].shape)} here"
        )
    network.load_state_dict(weights, strict=False)


def _open(path: Path) -> Any:
    """Whatever the file holds, read without running code in it."""
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    raw = _read(path)
    damaged = CheckpointError(f"{path} is cut short or no torch file")
    if not raw.startswith((b"PK", b"\x80")):  # of a zip archive, of a bare pickle
        raise damaged
    try:
        with warnings.catch_warnings(action="ignore"):  # on pickle protocols that do load
            return torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path} holds more than weights, and loading it would run code from the file; "
            "save network.state_dict() alone"
        ) from None
    except (RuntimeError, EOFError, BadZipFile, ValueError, KeyError, IndexError):
        raise damaged from None


def _open_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load as parse

    try:
        return parse(_read(path))
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no valid safetensors file: {error}") from None


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in a file's content."""
    if isinstance(content, Mapping):
        inner = [content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)]
        candidate = inner[0] if inner else content
        if candidate and all(isinstance(value, Tensor) for value in candidate.values()):
            return dict(candidate)
    raise CheckpointError(
        f"{path} holds no state dict, neither alone nor under {', '.join(_WRAPPERS)}"
    )


def _without_prefix(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights with the prefixes of parallel and compiled wrappers taken off."""
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            bare = {name.removeprefix(prefix): value for name, value in weights.items()}
            return _without_prefix(bare)
    return weights
