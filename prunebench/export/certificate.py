"""Defines the certificate of an exported network: its origin, costs, accuracy and speed.

The digests in it identify a file, and reveal damage and careless edits. They are no signature:
whoever alters a file on purpose can write a new certificate as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

import prunebench
from prunebench.errors import DataError
from prunebench.records import Latency, Score, from_json
from prunebench.records.jsonfile import digest, plain

#: suffix that is added to a file's whole name for its certificate
ENDING = ".certificate.json"
#: largest number of outputs per image that a certificate holds
OUTPUTS = 4096


@dataclass(frozen=True, kw_only=True)
class Base:
    """Describes the dense network.

    Attributes:
        weights: sha256 over its trained weights; None if they are not available.
        origin: where these came from, or why they are not available.
    """

    weights: str | None
    origin: str


@dataclass(frozen=True, kw_only=True)
class Code:
    """Identifies the code of the run and of the export.

    Attributes:
        run: commit of the run, followed by "dirty" if files differed from it; None if unknown.
        package: sha256 over the source files of prunebench that exported the network.
        versions: of Python, torch and torchvision.
    """

    run: str | None
    package: str
    versions: dict[str, str | None]


@dataclass(frozen=True, kw_only=True)
class Surgery:
    """Holds relative differences of the slim network from the dense one with channels masked.

    Attributes:
        recorded: the largest over the steps of the run, measured while pruning; None without a
            report.
        float32, float64: of the whole plan, on one image.
        weights: of the dense network in that measurement: trained or drawn at random.
    """

    recorded: float | None
    float32: float
    float64: float
    weights: str


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Holds the time that one network takes in one engine, or why it is not known.

    Attributes:
        network: ``dense`` or ``slim``.
        engine: ``eager``, ``compiled`` or ``onnxruntime``.
        latency: None if the network does not run there.
        why: the reason, in that case.
    """

    network: str
    engine: str
    latency: Latency | None
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Holds how far the exported network is from the one in memory.

    Attributes:
        relative: largest difference of an output, divided by the largest output.
        tolerance: the largest value that was accepted.
        images: on which they were compared, in words.
    """

    relative: float
    tolerance: float
    images: str


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Holds all that is certified about one exported network; the JSON beside it.

    Attributes:
        prunebench: version that exported it.
        format: of the file.
        title: what it is, in a line.
        input: what it expects of images.
        shape: (C, H, W) of an image.
        base: the dense network.
        plan: sha256 of the plan.
        kept: group -> number of channels.
        data: sha256 of the data's configuration and the contents of their files; None without a
            report.
        code: what computed it.
        weights: sha256 over the slim weights.
        surgery: how exact the cut is.
        counts: ``dense`` and ``slim`` -> convention -> count; ``file`` has those that differ on the
            file itself.
        accuracy: ``dense`` and ``slim`` -> score on the test images.
        latency: the times.
        machine: chip, threads and versions.
        difference: from the network in memory.
        outputs: of the network for two images that are the same on every machine.
        files: name -> sha256; empty in the copy inside the file.
        sha256: over all of the above.
    """

    prunebench: str
    format: str
    title: str
    input: str
    shape: list[int]
    base: Base
    plan: str
    kept: dict[str, int]
    data: str | None
    code: Code
    weights: str
    surgery: Surgery
    counts: dict[str, dict[str, int]]
    accuracy: dict[str, Score]
    latency: list[Timing]
    machine: dict[str, Any]
    difference: Difference
    outputs: list[list[float]]
    files: dict[str, str]
    sha256: str
    schema: int = 1


def sealed(certificate: Certificate, files: Mapping[str, str] | None = None) -> Certificate:
    """Returns `certificate` for `files` (name -> sha256), with its own digest over the rest."""
    filled = replace(certificate, files=dict(files or {}), sha256="")
    return replace(filled, sha256=digest(plain(filled)))


def beside(path: Path) -> Path:
    """Returns the path of the certificate of the file at `path`."""
    return path.with_name(path.name + ENDING)


def read(text: str, source: str) -> Certificate:
    """Returns the certificate that `text` holds.

    Raises:
        DataError: it is not a certificate, or was altered.
    """
    found = from_json(Certificate, text, source)
    if sealed(found, found.files).sha256 != found.sha256:
        raise DataError(f"{source} was altered: its digest does not match what it says")
    return found


def file_digest(path: Path) -> str:
    """Returns the sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Returns the sha256 over names, types, shapes and values of a state dict, in hex."""
    found = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        found.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        found.update(value.numpy().tobytes())
    return found.hexdigest()


def flat(outputs: Tensor) -> Tensor:
    """Returns outputs [n, ...] as rows, cut to the length that a certificate holds."""
    return outputs.reshape(len(outputs), -1)[:, :OUTPUTS]


def package_digest() -> str:
    """Returns the sha256 over the source files of prunebench, in hex."""
    folder, found = Path(prunebench.__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        found.update(f"{path.relative_to(folder).as_posix()}\n".encode())
        found.update(path.read_bytes())
    return found.hexdigest()
