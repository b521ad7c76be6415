"""Writes and reads ONNX: one file for onnxruntime and other engines."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from prunebench.errors import CheckpointError
from prunebench.export.formats import Opened
from prunebench.measure.engines import onnx_bytes, require_packages, session

if TYPE_CHECKING:
    from onnx import ModelProto

#: key of the certificate in the file's metadata
CERTIFICATE = "prunebench.certificate"
_CONVOLUTIONS, _PRODUCTS = ("Conv", "ConvTranspose"), ("Gemm", "MatMul")


def write(network: nn.Module, example: Tensor, path: Path, about: Mapping[str, Any]) -> None:
    """Writes `network`; see `Format`."""
    require_packages("onnx", "onnxscript", "onnxruntime")
    import onnx

    model = onnx.load_from_string(onnx_bytes(network, example))
    model.doc_string = f"{about['title']}. Input: {about['input']}"
    _set_metadata(model, "prunebench.input", about["input"])
    path.write_bytes(model.SerializeToString())


def carry(path: Path, certificate: str) -> None:
    """Stores the certificate in the metadata."""
    model = _load(path)
    _set_metadata(model, CERTIFICATE, certificate)
    path.write_bytes(model.SerializeToString())


def opened(path: Path, shape: tuple[int, ...]) -> Opened:
    """Reads the file; see `Format`."""
    require_packages("onnx", "onnxruntime")
    model = _load(path)
    held = {entry.key: entry.value for entry in model.metadata_props}
    return Opened(session(path.read_bytes()), counted(model), held.get(CERTIFICATE, ""))


def files(path: Path) -> list[Path]:
    """Returns the one file."""
    return [path]


def counted(model: ModelProto) -> dict[str, int]:
    """Returns the number of weights (``weights``) and of multiply-adds (``macs``) in `model`.

    Weights are those of convolutions and linear layers; multiply-adds are for one image, and
    include products of two computed matrices: elements of the result times terms in each sum.
    """
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    shapes |= _shapes_of_one(model)
    held = {tensor.name for tensor in model.graph.initializer}
    weights, macs = dict[str, int](), 0
    for node in model.graph.node:
        if node.op_type not in _CONVOLUTIONS + _PRODUCTS:
            continue
        weights |= {name: prod(shapes[name]) for name in node.input[:2] if name in held}
        first, out = shapes[node.input[0]], shapes[node.output[0]]
        if node.op_type in _PRODUCTS:
            macs += prod(out) * first[-1]
        else:
            pixels = first if node.op_type == "ConvTranspose" else out
            macs += prod(shapes[node.input[1]]) * prod(pixels[2:])
    return {"weights": sum(weights.values()), "macs": macs}


def _shapes_of_one(model: ModelProto) -> dict[str, list[int]]:
    """Returns name -> shape of the input and of every computed tensor, for one image."""
    import onnx

    single = onnx.ModelProto()
    single.CopyFrom(model)
    del single.graph.value_info[:]  # their shapes are for a batch of any size
    batch = single.graph.input[0].type.tensor_type.shape.dim[0]
    batch.Clear()
    batch.dim_value = 1
    graph = onnx.shape_inference.infer_shapes(single, data_prop=True).graph
    return {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*graph.value_info, *graph.input, *graph.output]
    }


def _load(path: Path) -> ModelProto:
    import onnx

    try:
        return onnx.load(path, load_external_data=False)
    except Exception as error:
        raise CheckpointError(f"{path} is no ONNX file ({error})") from error


def _set_metadata(model: ModelProto, key: str, value: str) -> None:
    """Sets an entry of the metadata, replacing an older one."""
    kept = [entry for entry in model.metadata_props if entry.key != key]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    entry = model.metadata_props.add()
    entry.key, entry.value = key, value
