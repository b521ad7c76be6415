"""Verifies an exported file against its certificate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from prunebench.errors import CheckpointError, DataError
from prunebench.export import certificate as certificates
from prunebench.export.certificate import Certificate
from prunebench.export.formats import Opened, random_images
from prunebench.export.named import format_of


class AlteredError(Exception):
    """Raised for a file or certificate that is not what was exported."""


def check(path: Path) -> Iterator[str]:
    """Verifies the file at `path`; yields a line for each property that holds.

    Raises:
        AlteredError: something does not hold.
        PrunebenchError: a file is missing, or cannot be verified here.
    """
    held = certificate_of(path)
    kind = format_of(held.format)
    for each in kind.files(path):
        if not each.is_file():
            raise CheckpointError(f"{each} is missing, which belongs to {path.name}")
        if certificates.file_digest(each) != held.files.get(each.name):
            raise AlteredError(f"{each} was altered: its digest is not that of the certificate")
        yield f"{each.name}: the file that was exported"
    opened = kind.opened(path, tuple(held.shape))
    if opened.certificate:
        inside = _read(opened.certificate, f"the certificate inside {path.name}")
        if inside != certificates.sealed(held):
            raise AlteredError(f"the certificate beside {path.name} is not the one inside it")
        yield "the certificate inside is the one beside it"
    yield f"outputs differ by {_difference(opened, held):.1e} (relative) from those on record"
    for name, count in opened.counts.items():
        known = {**held.counts["slim"], **held.counts.get("file", {})}[name]
        if count != known:
            raise AlteredError(f"{name} are {count:,}, and {known:,} on record")
        yield f"{name}: {count:,} (dense {held.counts['dense'][name]:,})"
    same = certificates.package_digest() == held.code.package
    yield f"exported by {'this very' if same else 'another version of the'} code of prunebench"


def certificate_of(path: Path) -> Certificate:
    """Returns the certificate beside the file at `path`.

    Raises:
        CheckpointError: the file or its certificate is missing.
        AlteredError: the certificate was altered.
    """
    beside = certificates.beside(path)
    if path.name.endswith(certificates.ENDING):
        file = path.name.removesuffix(certificates.ENDING)
        raise CheckpointError(f"{path} is a certificate; give the file: {path.with_name(file)}")
    if not path.exists():
        raise CheckpointError(f"{path} is missing")
    if not path.is_file() or not beside.is_file():
        raise CheckpointError(
            f"{path} has no certificate {beside.name} beside it; prunebench export writes a "
            "network and its certificate"
        )
    return _read(beside.read_text(encoding="utf-8"), str(beside))


def _read(text: str, source: str) -> Certificate:
    try:
        return certificates.read(text, source)
    except DataError as error:
        raise AlteredError(str(error)) from None


def _difference(opened: Opened, held: Certificate) -> float:
    """Returns the relative difference of the outputs from those in the certificate.

    Raises:
        AlteredError: it is larger than the tolerance.
    """
    want = torch.tensor(held.outputs)
    with torch.no_grad():
        have = certificates.flat(opened.run(random_images(tuple(held.shape), len(want))))
    if have.shape != want.shape:
        raise AlteredError(f"the outputs are {list(have.shape)}, and {list(want.shape)} on record")
    relative = float((want - have).abs().max()) / max(float(want.abs().max()), 1e-30)
    if not relative <= held.difference.tolerance:
        raise AlteredError(f"the outputs differ by {relative:.1e} (relative) from those on record")
    return relative
