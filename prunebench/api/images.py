"""Converts what users pass as images (tensors, pairs, data loaders) into a sample for criteria."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from prunebench.api.choices import called, counted, spoken
from prunebench.channels.example import described
from prunebench.channels.followable import plain, require_followable
from prunebench.channels.tensors import map_tensors, tensors_in
from prunebench.contracts import Task, rows
from prunebench.errors import ConfigError, PruningError, first_line
from prunebench.run.step import Method, Sample

FORMS = (
    "images must be a tensor, (inputs, targets), or an iterable of such batches, where inputs are "
    "a tensor, or a tuple or dict of several"
)


def followable(model: nn.Module) -> nn.Module:
    """Returns `model`; for a compiled one, the original module.

    Raises:
        PruningError: its forward cannot be traced, or its weights are missing or not finite, which
            would cause misleading errors later.
    """
    require_followable(model)
    network = plain(model)
    for name, weight in network.named_parameters():
        if weight.is_meta:
            raise PruningError(
                f"{name} is on the meta device and has no values; load weights first"
            )
        if weight.is_floating_point() and not bool(weight.detach().isfinite().all()):
            raise PruningError(f"{name} has values that are not finite; has training diverged?")
    return network


def sample_of(images: Any, method: Method, task: Task, network: nn.Module, seed: int) -> Sample:
    """Returns the first images, as many as `method` needs, on the device of `network`.

    Batches are concatenated; the criterion makes its own. A list of inputs counts as a tuple,
    unless `task.forward` is given: then lists have one entry per image.

    Raises:
        ConfigError: there are no images, they have another form, `seed` is not an integer, or loss
            or forward cannot be called.
        PruningError: the network fails on the first image.
    """
    seed = counted("seed", seed, 0)
    called(loss=task.loss, forward=task.forward)
    count = method.images_needed
    if not count:
        return Sample(torch.empty(0), None, seed, task)
    if images is None:
        name = spoken(method.criterion if method.criterion.images_needed else method.repair)
        raise ConfigError(
            f"{name} needs {count} training images; give images=(inputs, labels), "
            "a tensor of inputs, or a data loader"
        )
    found, have = list[tuple[Any, Any]](), 0
    for inputs, targets in _batches(images):
        if isinstance(inputs, list) and task.forward is None:
            inputs = tuple(inputs)
        have += _image_count(inputs, targets)
        found.append((inputs, targets))
        if have >= count:
            break
    if not have:
        raise ConfigError("images= holds no image")
    device = next((weight.device for weight in network.parameters()), torch.device("cpu"))
    first = [rows(_concatenated(column), 0, count) for column in zip(*found, strict=True)]
    inputs, targets = (_moved(part, device) for part in first)
    if not all(bool(t.isfinite().all()) for t in tensors_in(inputs) if t.is_floating_point()):
        raise ConfigError("images= holds values that are not finite")
    if task.forward is None:
        _require_runs(network, rows(inputs, 0, 1))
    return Sample(inputs, targets, seed, task)


def _batches(images: Any) -> Iterator[tuple[Any, Any]]:
    """Yields (inputs, targets) of each batch; targets may be None."""
    if isinstance(images, (Tensor, tuple, Mapping)):
        yield _pair(images)
    elif isinstance(images, Iterable) and not isinstance(images, str | bytes):
        for batch in images:
            yield _pair(batch)
    elif isinstance(images, Dataset):
        raise ConfigError(
            f"images= is a data set ({type(images).__name__}); give torch.utils.data.DataLoader of "
            "it, whose batches are (inputs, targets)"
        )
    else:
        raise ConfigError(f"{FORMS}; got {str(images)[:60]!r}")


def _pair(batch: Any) -> tuple[Any, Any]:
    """Returns (inputs, targets) of one batch."""
    if isinstance(batch, (tuple, list)):
        if len(batch) in (1, 2):
            return batch[0], (batch[1] if len(batch) == 2 else None)
        raise ConfigError(
            f"a batch of {len(batch)} parts is not (inputs, targets); several inputs are given as "
            "((a, b), targets)"
        )
    return batch, None


def _image_count(inputs: Any, targets: Any) -> int:
    """Returns the number of images in a batch.

    Raises:
        ConfigError: its parts have different lengths, or something has no entry for each image.
    """
    counts = {count for part in (inputs, targets) for count in _lengths(part)}
    if len(counts) != 1:
        raise ConfigError(
            f"the parts of images= hold {' and '.join(map(str, sorted(counts)))} images: inputs "
            f"are {described(inputs)}, targets {described(targets)}; {FORMS}"
        )
    return counts.pop()


def _lengths(part: Any) -> Iterator[int]:
    """Yields the length of each part of inputs or targets."""
    if isinstance(part, Mapping):
        part = tuple(part.values())
    if isinstance(part, tuple):
        for inner in part:
            yield from _lengths(inner)
    elif isinstance(part, list) or (isinstance(part, Tensor) and part.dim()):
        yield len(part)
    elif part is not None:
        raise ConfigError(f"{FORMS}; got {str(part)[:60]!r} in them")


def _concatenated(parts: tuple[Any, ...]) -> Any:
    """Returns several batches of inputs, or of targets, as one."""
    first = parts[0]
    if isinstance(first, Tensor):
        if len({part.shape[1:] for part in parts}) > 1:
            raise ConfigError(
                f"the batches of images= differ in size ({described(list(parts))}); give them one "
                "size, or lists with an entry for each image and a forward= that takes them"
            )
        return torch.cat(parts)
    if isinstance(first, list):
        return [entry for part in parts for entry in part]
    if isinstance(first, Mapping):
        return {key: _concatenated(tuple(part[key] for part in parts)) for key in first}
    if isinstance(first, tuple):
        return tuple(_concatenated(column) for column in zip(*parts, strict=True))
    return None


def _moved(part: Any, device: torch.device) -> Any:
    """Returns `part` on `device`."""
    return map_tensors(part, lambda t: t.to(device))


def _require_runs(network: nn.Module, image: Any) -> None:
    """Raises PruningError if the network fails on `image`, before a criterion would."""
    with torch.no_grad():
        try:
            Task().run(network, image)
        except Exception as error:
            why = first_line(error)
            raise PruningError(
                f"the network fails on the first of images= ({described(image)}): {why}; give what "
                "its forward takes, or a forward= of network and inputs"
            ) from error
