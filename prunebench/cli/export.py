"""Implements ``prunebench export``, which writes a slim network to a file, and ``check``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from prunebench.errors import Parser, require, require_choice
from prunebench.interruption import Interrupted, listening
from prunebench.records.widths import advice, falls_short, odd_widths

if TYPE_CHECKING:
    from prunebench.export.certificate import Certificate

#: format -> suffix of its files
FORMATS = {"onnx": ".onnx", "torch_export": ".pt2", "safetensors": ".safetensors", "python": ".py"}
ENGINES = ("eager", "compiled", "onnxruntime")


def main(words: Sequence[str]) -> int:
    """Exports the network that `words` ask for; returns the exit code.

    Raises:
        PrunebenchError: there is no network, a package is missing, or the network cannot be
            written, or the written file computes something else.
    """
    asked = _parser().parse_args(words)
    ending = FORMATS[asked.format]
    file = asked.output or Path(f"slim{ending}")
    require(file.suffix == ending, f"-o {file}: the format {asked.format} is written to *{ending}")
    require(not file.is_dir(), f"-o {file} is a folder; name the file: {file / f'slim{ending}'}")
    require(asked.images >= 2, f"--images must be at least 2, got {asked.images}")
    require(asked.batch >= 1, f"--batch must be at least 1, got {asked.batch}")
    require(asked.tolerance >= 0, f"--tolerance must not be negative, got {asked.tolerance}")
    engines = [word for word in asked.latency.split(",") if word != "none"]
    for engine in engines:
        require_choice("--latency", engine, (*ENGINES, "none"))
    require(
        asked.model or not asked.kwargs,
        "--kwargs holds the arguments of --model: give --model, too",
    )
    from prunebench import export
    from prunebench.export.own import Own
    from prunebench.export.source import found

    own = Own(asked.model, asked.kwargs) if asked.model else None
    wanted = export.Wanted(
        format=asked.format,
        file=file,
        normalise=asked.normalise,
        images=asked.images,
        data=asked.data,
        tolerance=asked.tolerance,
        engines=engines,
        batches=(1, asked.batch),
    )
    try:
        with listening():
            made = export.export(found(asked.run, own), wanted, _print)
    except Interrupted as stopped:
        sys.stderr.write(f"prunebench: {stopped}; nothing was written\n")
        return stopped.code
    tell(made, file)
    return 0


def check(words: Sequence[str]) -> int:
    """Verifies an exported file; returns 1 if it was altered.

    Raises:
        PrunebenchError: it cannot be verified.
    """
    parser = Parser(
        prog="prunebench check",
        description=(
            "Verifies a file that prunebench export wrote: digests, outputs and counts. A python "
            "file is run for that. Exit code: 0 everything matches, 1 something was altered, 2 "
            "it cannot be checked."
        ),
    )
    parser.add_argument("file", type=Path, help="the exported file; its certificate lies beside it")
    asked = parser.parse_args(words)
    from prunebench.export import check as checking

    try:
        with listening():
            for line in checking.check(asked.file):
                _print(line)
    except Interrupted as stopped:
        sys.stderr.write(f"prunebench: {stopped}\n")
        return stopped.code
    except checking.AlteredError as error:
        sys.stderr.write(f"prunebench: {error}\n")
        return 1
    _print(f"{asked.file} matches its certificate (digests are not a signature)")
    return 0


def tell(made: Certificate, file: Path) -> None:
    """Prints what was exported, and its speed-ups."""
    from prunebench.export.timings import busy, speed_ups

    slim, dense = made.counts["slim"], made.counts["dense"]
    _print(
        f"{slim['params']:,} of {dense['params']:,} params, {slim['macs']:,} of "
        f"{dense['macs']:,} MACs; surgery exact to {made.surgery.float32:.1e} in float32, "
        f"{made.surgery.float64:.1e} in float64 ({made.surgery.weights} weights)"
    )
    for one in made.latency:
        if one.latency is None and one.network == "slim":
            _print(f"{one.engine}: not timed: {one.why}")
    costly, counted = advice(odd_widths(made.kept.values())), dense["macs"] / slim["macs"]
    for (engine, batch), times in speed_ups(made.latency).items():
        line = f"{engine}, batch {batch}: {times:.2f} x as fast as the dense network"
        if busy(made.latency, engine, batch):
            line += ", but the machine was too busy for a reliable measurement"
        elif costly and falls_short(counted, times):
            line += f"; {costly}"
        _print(line)
    _print(f"wrote {file} and {file.name}.certificate.json")


def _keywords(text: str) -> dict[str, Any]:
    """Parses keyword arguments typed as YAML.

    Raises:
        ArgumentTypeError: `text` is something else.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError:
        values = None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise argparse.ArgumentTypeError(
            f"{text} is no mapping of keywords, such as '{{width: 8}}'"
        )
    return values


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="prunebench export",
        description=(
            "Writes a run's slim network to a file for other programs, compares it with PyTorch on "
            "images of the run's data, and certifies it; prunebench check verifies the file."
        ),
        epilog="onnx needs the extra export: pip install 'prunebench[export]'",
    )
    parser.add_argument(
        "run",
        type=Path,
        metavar="RUN",
        help="folder of a run, its report.json or slim.pt; or what prunebench.save wrote",
    )
    parser.add_argument("--format", choices=tuple(FORMATS), default="onnx")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: slim.onnx, ...")
    parser.add_argument(
        "--normalise",
        action="store_true",
        help="the file takes pixel / 255; otherwise its metadata state the normalisation",
    )
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="for your own network: class or function that builds the dense one, my.module.Net",
    )
    parser.add_argument(
        "--kwargs",
        type=_keywords,
        default={},
        metavar="YAML",
        help="arguments of --model, such as '{width: 8}'",
    )
    parser.add_argument("--images", type=int, default=32, help="compared images (default 32)")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="the run's data, if it moved")
    parser.add_argument(
        "--tolerance", type=float, default=1e-4, help="largest relative difference (default 1e-4)"
    )
    parser.add_argument(
        "--latency",
        default="eager,onnxruntime",
        metavar="ENGINES",
        help=f"to time in: {', '.join(ENGINES)} (compiling takes minutes) or none",
    )
    parser.add_argument("--batch", type=int, default=64, help="batch size to time besides 1")
    return parser
