"""Reads weights from other people's files without running any code in them."""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from torch import Tensor, nn

from prunebench.channels.followable import is_wrapped
from prunebench.channels.gather import GatherChannels
from prunebench.checkpoints import read, require_modest
from prunebench.errors import CheckpointError

_WRAPPERS = ("state_dict", "net_state_dict", "model_state_dict", "model", "network", "net")
_PREFIXES = ("module.", "_orig_mod.")


def load_weights(network: nn.Module, path: Path) -> None:
    """Loads a user's weights into `network`, in place, from any of the usual kinds of file.

    These are .safetensors, and torch files with a state dict, alone or under one of the usual keys,
    with or without the prefix ``module.``. The index of a `GatherChannels`, which is no weight, and
    ``num_batches_tracked`` may be missing. No code in the file is ever run.

    Raises:
        CheckpointError: the file cannot be read safely, or does not fit the network.
    """
    fit_weights(network, _without_prefix(_state_dict(_open(path), path)), path)


def fit_weights(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Loads `weights`, read from the file at `path`, into `network`, in place.

    Raises:
        CheckpointError: they do not fit.
    """
    own = network.state_dict()
    optional = {name for name in own if name.endswith("num_batches_tracked")} | {
        f"{name}.index"
        for name, module in network.named_modules()
        if isinstance(module, GatherChannels)
    }
    lacking = [name for name in own if name not in weights and name not in optional]
    foreign = [name for name in weights if name not in own]
    if lacking or foreign:
        parts = [f"missing tensors: {len(lacking)}, first '{lacking[0]}'"] if lacking else []
        parts += [f"unknown tensors: {len(foreign)}, first '{foreign[0]}'"] if foreign else []
        raise CheckpointError(f"{path} belongs to another network: {'; '.join(parts)}")
    wrong = [name for name in weights if weights[name].shape != own[name].shape]
    if wrong:
        name = wrong[0]
        raise CheckpointError(
            f"{path} does not fit: {len(wrong)} of {len(own)} tensors differ in shape, first "
            f"'{name}': {list(weights[name].shape)} in the file, {list(own[name].shape)} here"
        )
    for name, value in weights.items():
        if told := _unlike(value, own[name]):
            raise CheckpointError(f"{path} does not fit: '{name}' is {told}")
    broken = [name for name, value in weights.items() if not bool(value.isfinite().all())]
    if broken:
        raise CheckpointError(f"{path} holds numbers that are not finite, first in '{broken[0]}'")
    network.load_state_dict(weights, strict=False)


def _unlike(given: Tensor, own: Tensor) -> str:
    """Says why `given` cannot replace `own`; "" if it can. Precision may differ."""
    if is_wrapped(given):
        return f"a {type(given).__name__}"
    if given.is_meta or given.layout != torch.strided or given.is_quantized:
        return "meta" if given.is_meta else "quantized" if given.is_quantized else str(given.layout)
    same = given.is_complex() == own.is_complex()
    same &= given.is_floating_point() == own.is_floating_point()
    return "" if same else f"{given.dtype} in the file, {own.dtype} here".replace("torch.", "")


def load_head(path: Path, classes: int) -> Tensor | None:
    """Returns the weights [classes, d] of the head that a file holds beside a network, if any.

    A head with another number of classes counts as none.

    Raises:
        CheckpointError: the file cannot be read safely.
    """
    content = _open(path)
    head = content.get("head") if isinstance(content, Mapping) else None
    fits = isinstance(head, Tensor) and head.dim() == 2 and len(head) == classes
    return head.float() if isinstance(head, Tensor) and fits else None


def _open(path: Path) -> Any:
    """Returns the content of a file, read without running code in it."""
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    raw = read(path)
    damaged = CheckpointError(f"{path} is cut short or no torch file")
    if not raw.startswith((b"PK", b"\x80")):  # a zip archive, or a bare pickle
        raise damaged
    require_modest(raw, path)
    try:
        with warnings.catch_warnings(action="ignore"):  # about pickle protocols that load anyway
            return torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path} holds more than weights, and loading it would run code from the file; "
            "save network.state_dict() alone"
        ) from None
    except (RuntimeError, EOFError, BadZipFile, ValueError, KeyError, IndexError):
        raise damaged from None


def _open_safetensors(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a .safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load as parse

    try:
        return parse(read(path))
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no valid safetensors file: {error}") from None


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """Returns the state dict in a file's content."""
    if isinstance(content, Mapping):
        inner = [content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)]
        candidate = inner[0] if inner else content
        named = all(isinstance(name, str) for name in candidate)
        if named and candidate and all(isinstance(v, Tensor) for v in candidate.values()):
            return dict(candidate)
    raise CheckpointError(
        f"{path} holds no state dict, neither alone nor under {', '.join(_WRAPPERS)}"
    )


def _without_prefix(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights without the prefixes of parallel and compiled wrappers."""
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            bare = {name.removeprefix(prefix): value for name, value in weights.items()}
            return _without_prefix(bare)
    return weights
