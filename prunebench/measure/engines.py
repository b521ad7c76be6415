"""Engines that run a network: eager torch, compiled torch, or onnxruntime."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from prunebench.errors import ConfigError, first_line
from prunebench.measure.accuracy import evaluating

ENGINES = ("eager", "compiled", "onnxruntime")
#: takes images and returns the network's output
Runner = Callable[[Tensor], Tensor]
#: the oldest onnxscript that writes ONNX with today's other packages, as in the extra ``export``
_OLDEST = (0, 6, 1)
#: names of input and output in ONNX files
INPUT, OUTPUT = "images", "outputs"


def require_packages(*names: str) -> None:
    """Raises ConfigError unless all packages `names` of the extra ``export`` are installed."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)} is not installed; pip install 'prunebench[export]'"
        )


def onnx_bytes(network: nn.Module, example: Tensor) -> bytes:
    """Returns `network` as an ONNX file of any batch size.

    Args:
        network: a network in eval mode, on the CPU.
        example: images [2 or more, C, H, W].

    Raises:
        ConfigError: packages are missing or too old, or the network cannot be expressed in ONNX.
    """
    require_packages("onnx", "onnxscript")
    found = metadata.version("onnxscript")
    if tuple(map(int, re.findall(r"\d+", found)[:3])) < _OLDEST:
        raise ConfigError(
            f"onnxscript {found} is too old to write ONNX; pip install -U 'prunebench[export]'"
        )
    program = _onnx_program(network, example)
    if "Draft" in str(getattr(program, "_capture_strategy", "")):
        # torch 2.8 writes one path through a network that decides by its data
        raise ConfigError(
            "the network cannot be expressed in ONNX: its forward follows the example's data, "
            "perhaps by a data-dependent expression"
        )
    content: bytes = program.model_proto.SerializeToString()
    return content


def _onnx_program(network: nn.Module, example: Tensor) -> Any:
    told = io.StringIO()
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(action="ignore"), redirect_stdout(told), redirect_stderr(told):
            return torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: "batch"},),
                input_names=[INPUT],
                output_names=[OUTPUT],
                verbose=False,
            )
    except Exception as error:
        first: BaseException = error  # torch's own error names a step of the export, not the reason
        while first.__cause__ is not None:
            first = first.__cause__
        why = first_line(first)
        raise ConfigError(f"the network cannot be expressed in ONNX: {why}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def session(content: bytes) -> Runner:
    """Returns a runner of an ONNX file on the CPU, with as many threads as torch has.

    Raises:
        ConfigError: onnxruntime is missing, or cannot run the file.
    """
    require_packages("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        made = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        why = first_line(error)
        raise ConfigError(f"onnxruntime cannot run it: {why}") from error
    name = made.get_inputs()[0].name

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(made.run(None, {name: images.numpy()})[0])

    return run


def runner(engine: str, network: nn.Module, example: Tensor) -> Runner:
    """Returns a runner of `network` in one of `ENGINES`.

    Args:
        engine: see `ENGINES`.
        network: a network in eval mode.
        example: images [2 or more, C, H, W] on its device.

    Raises:
        ConfigError: the engine is missing, or cannot run the network.
    """
    if engine == "onnxruntime":
        return session(onnx_bytes(network, example))
    if engine == "eager":
        return network
    # silence its useless warning on machines that have the CUDA toolkit but no GPU
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    made: Runner = torch.compile(network, dynamic=False)
    try:
        with warnings.catch_warnings(action="ignore"), evaluating(network):
            made(example)
    except Exception as error:
        why = first_line(error)
        raise ConfigError(f"torch.compile does not work here: {why}") from error
    return made
