"""Exports slim networks: files that other programs run, and a certificate beside each.

Begin with `export`, which loads, writes, compares and certifies. Each format has a module:
`onnx_file`, `program` (torch.export), `tensors` (safetensors) and `python_file`; `formats.Format`
says what they offer. `check` verifies a file against its `certificate`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunebench import __version__
from prunebench.checkpoints.slimmed import Normalisation
from prunebench.errors import PruningError, require
from prunebench.export import certificate as certificates
from prunebench.export.base import dense_of, surgery
from prunebench.export.certificate import Certificate, Code, Difference
from prunebench.export.draft import draft_folder
from prunebench.export.formats import Opened, random_images
from prunebench.export.images import Images, images_of
from prunebench.export.named import format_of
from prunebench.export.normalised import Normalised, expected
from prunebench.export.source import Source
from prunebench.export.timings import timings
from prunebench.interruption import finish
from prunebench.measure.conventions import conventions
from prunebench.measure.engines import Runner
from prunebench.records import to_json
from prunebench.records.environment import environment
from prunebench.records.identity import deciding
from prunebench.records.jsonfile import digest, write_bytes

#: keys in a slim network's file that say how it is built
_STRUCTURE = ("model", "shape", "classes", "plans", "wiring")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Says how to export.

    Attributes:
        format: name of the format.
        file: to write.
        normalise: whether the exported network normalises images itself.
        images: number of images to compare on.
        data: where the run's data lie, if not where the run found them.
        tolerance: the largest relative difference that is accepted.
        engines: engines in which to time the networks.
        batches: images per pass when timing.
    """

    format: str
    file: Path
    normalise: bool = False
    images: int = 32
    data: Path | None = None
    tolerance: float = 1e-4
    engines: Sequence[str] = ("eager", "onnxruntime")
    batches: Sequence[int] = (1, 64)


def export(source: Source, wanted: Wanted, say: Callable[[str], None]) -> Certificate:
    """Writes the network of `source`, compared with it, and a certificate beside the file.

    Args:
        source: the slim network and what is known of it.
        wanted: how to export.
        say: shows the user a line.

    Raises:
        PruningError: the written network computes something else; then no file is left.
        ConfigError: a package is missing, or the format cannot hold this network.
    """
    require(
        not (wanted.normalise and wanted.format == "safetensors"),
        "safetensors hold weights alone, and normalise nothing; leave --normalise out (the "
        "metadata say what the network expects), or choose another format",
    )
    _leave_alone_others(wanted.file)
    kind, network, normalisation = format_of(wanted.format), source.network, source.normalisation
    if wanted.normalise:
        require(
            normalisation is not None,
            f"{source.file} does not say how a network of your own has images normalised; leave "
            "--normalise out, and normalise in its forward",
        )
        assert normalisation is not None
        network = Normalised(network, normalisation).eval()
    images = images_of(source, wanted.images, wanted.data)
    folder = wanted.file.parent
    folder.mkdir(parents=True, exist_ok=True)
    with draft_folder(folder) as place:
        draft = place / wanted.file.name
        kind.write(network, random_images(source.shape), draft, _about(source, wanted))
        opened = kind.opened(draft, source.shape)
        difference = compared(network, opened.run, images, source, wanted)
        say(f"{difference.relative:.1e} relative difference to PyTorch, on {difference.images}")
        made = recounted(certified(source, wanted, difference, network, opened), opened.counts)
        kind.carry(draft, to_json(certificates.sealed(made)))
        files = {path.name: certificates.file_digest(path) for path in kind.files(draft)}
        made = certificates.sealed(made, files)
        finish()  # an interruption now would leave files without their certificate
        for path in kind.files(draft):
            os.replace(path, folder / path.name)
    write_bytes(certificates.beside(wanted.file), to_json(made).encode())
    return made


def _leave_alone_others(file: Path) -> None:
    """Raises ConfigError if `file` would overwrite the weights of another export.

    The format python keeps its weights in a .safetensors file, so the two formats can collide.
    """
    counterpart = {".py": ".safetensors", ".safetensors": ".py"}
    other = file.with_suffix(counterpart.get(file.suffix, file.suffix))
    require(
        other == file or not certificates.beside(other).exists(),
        f"-o {file}: {other} was exported there, and both keep their weights in "
        f"{file.with_suffix('.safetensors').name}; choose another name",
    )


def compared(
    network: nn.Module, run: Runner, images: Images, source: Source, wanted: Wanted
) -> Difference:
    """Returns the difference of the written network from `network`, at two batch sizes.

    Raises:
        PruningError: it is larger than the tolerance.
    """
    values = images.values
    if wanted.normalise and source.normalisation:
        values = denormalised(values, source.normalisation)
    with torch.no_grad():
        want = network(values)
        have = torch.cat([run(values[:-1]), run(values[-1:])])
    gap = float((want - have).abs().max())
    relative = gap / max(float(want.abs().max()), torch.finfo(torch.float32).tiny)
    if not relative <= wanted.tolerance:  # true for NaN, too
        raise PruningError(
            f"what was written differs from PyTorch by {relative:.1e} (relative) on "
            f"{images.origin}, more than --tolerance {wanted.tolerance:g}; no file is left"
        )
    return Difference(relative=relative, tolerance=wanted.tolerance, images=images.origin)


def denormalised(values: Tensor, normalisation: Normalisation) -> Tensor:
    """Returns normalised images as they were before normalising."""
    mean, std = (
        values.new_tensor(v)[:, None, None] for v in (normalisation.mean, normalisation.std)
    )
    return values * std + mean


def certified(
    source: Source, wanted: Wanted, difference: Difference, network: nn.Module, opened: Opened
) -> Certificate:
    """Returns the certificate of the written network `opened`; it names no files yet."""
    dense, base = dense_of(source)
    report, networks = source.report, {"dense": dense, "slim": source.network}
    unchanged = wanted.format == "onnx" and network is source.network
    ready = {("slim", "onnxruntime"): opened.run} if unchanged else {}
    scores = {name: source.measured(name) for name in networks}
    machine = environment()
    with torch.no_grad():
        outputs = certificates.flat(network(random_images(source.shape)))
    about = _about(source, wanted)
    kept = {name: len(classes) for name, classes in source.plan.kept.items()}
    return Certificate(
        prunebench=__version__,
        format=wanted.format,
        title=about["title"],
        input=about["input"],
        shape=list(source.shape),
        base=base,
        plan=digest(source.plan.to_json()),
        kept=kept,
        data=data_digest(source),
        code=Code(
            run=_commit(report.environment) if report else None,
            package=certificates.package_digest(),
            versions={key: machine[key] for key in ("python", "torch", "torchvision")},
        ),
        weights=certificates.weights_digest(source.network.state_dict()),
        surgery=surgery(source, dense, base),
        counts={name: conventions(each, source.example) for name, each in networks.items()},
        accuracy={name: m.test for name, m in scores.items() if m and m.test},
        latency=timings(networks, wanted.engines, wanted.batches, source.shape, ready),
        machine=machine,
        difference=difference,
        outputs=outputs.tolist(),
        files={},
        sha256="",
    )


def recounted(made: Certificate, counts: Mapping[str, int]) -> Certificate:
    """Returns `made` with the `counts`, taken on the written network, that differ from PyTorch's.

    They differ where a format expresses a layer by others, which are not counted.
    """
    other = {name: count for name, count in counts.items() if count != made.counts["slim"][name]}
    return replace(made, counts={**made.counts, "file": other}) if other else made


def data_digest(source: Source) -> str | None:
    """Returns the digest of the run's data: their configuration and the contents of their files.

    None without a report.
    """
    if source.report is None:
        return None
    section = {"dataset": source.report.config["dataset"]}
    return digest(deciding(section, source.report.contents or {}))


def _commit(environment: dict[str, Any]) -> str | None:
    commit = environment.get("commit")
    return f"{commit}{' dirty' if environment.get('dirty') else ''}" if commit else None


def _about(source: Source, wanted: Wanted) -> dict[str, Any]:
    """Returns what a file says about itself; see `Format.write`."""
    model = source.content["model"]
    name = source.report.config["name"] if source.report else model.get("target", model["_target_"])
    return {
        "title": f"{name.rpartition('.')[2]}, slimmed and exported by prunebench {__version__}",
        "name": wanted.file.stem,
        "input": expected(source.normalisation, inside=wanted.normalise),
        "structure": {key: source.content[key] for key in _STRUCTURE if key in source.content},
    }
