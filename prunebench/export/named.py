"""Finds a format by its name."""

from __future__ import annotations

from prunebench.export import onnx_file, program, python_file, tensors
from prunebench.export.formats import Format


def format_of(name: str) -> Format:
    """Returns the format called `name`."""
    formats: dict[str, Format] = {
        "onnx": onnx_file,
        "torch_export": program,
        "safetensors": tensors,
        "python": python_file,
    }
    return formats[name]
