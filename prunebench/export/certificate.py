"""What goes with an exported network: where it comes from, what it costs, how well and fast it is.

Its digests tell a file from another, and find damage and careless edits. They are no signature:
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

#: what the name of a certificate ends with, behind the whole name of the file
ENDING = ".certificate.json"
#: outputs of an image that it holds at most
OUTPUTS = 4096


@dataclass(frozen=True, kw_only=True)
class Base:
    """The dense network.

    Attributes:
        weights: sha256 over its trained weights; None where they are not at hand.
        origin: where these came from, or why they are not at hand.
    """

    weights: str | None
    origin: str


@dataclass(frozen=True, kw_only=True)
class Code:
    """What computed it.

    Attributes:
        run: commit of the run ("dirty" behind it where files differed); None where unknown.
        package: sha256 over the source files of prunebench that exported it.
        versions: of prunebench and what it stands on.
    """

    run: str | None
    package: str
    versions: dict[str, str | None]


@dataclass(frozen=True, kw_only=True)
class Surgery:
    """How far the slim network is from the dense one with channels masked, relative to its outputs.

    Attributes:
        recorded: the largest over the steps of the run, as it was pruned; None without a report.
        float32, float64: of the whole plan, on an image.
        weights: which ones the dense network had for that: trained or drawn at random.
    """

    recorded: float | None
    float32: float
    float64: float
    weights: str


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long one of the networks takes in one engine; or why that is not known.

    Attributes:
        network: ``dense`` or ``slim``.
        engine: ``eager``, ``compiled`` or ``onnxruntime``.
        latency: None where it does not run.
        why: then, why not.
    """

    network: str
    engine: str
    latency: Latency | None
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far the exported network is from the one in memory.

    Attributes:
        relative: largest difference of an output, divided by the largest output.
        tolerance: the most that was accepted.
        images: which images they were compared on.
    """

    relative: float
    tolerance: float
    images: str


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Everything that is said of one exported network; the JSON beside it.

    Attributes:
        prunebench: version that exported it.
        format: of the file.
        title: what it is, in a line.
        input: what it expects of images.
        shape: (C, H, W) of an image.
        base: the dense network.
        plan: sha256 of the plan.
        kept: group -> number of channels.
        data: sha256 of the configuration of the data and of what their files hold; None without a
            report.
        code: what computed it.
        weights: sha256 over the slim weights.
        surgery: how exact the cut is.
        counts: ``dense`` and ``slim`` -> convention -> count; under ``file`` those that come out
            otherwise on the file itself.
        accuracy: ``dense`` and ``slim`` -> right answers out of how many, on the test images.
        latency: what was timed.
        machine: chip, threads and versions.
        difference: from the network in memory.
        outputs: what it makes of two images that are drawn alike everywhere.
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
    """Returns where the certificate of the file at `path` lies."""
    return path.with_name(path.name + ENDING)


def read(text: str, source: str) -> Certificate:
    """Returns the certificate that `text` holds.

    Raises:
        DataError: it is none, or was altered.
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
    """Returns the outputs [n, ...] of images as rows that a certificate has room for."""
    return outputs.reshape(len(outputs), -1)[:, :OUTPUTS]


def package_digest() -> str:
    """Returns the sha256 over the source files of prunebench, in hex."""
    folder, found = Path(prunebench.__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        found.update(f"{path.relative_to(folder).as_posix()}\n".encode())
        found.update(path.read_bytes())
    return found.hexdigest()
