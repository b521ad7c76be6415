"""Times the layers of a network at other widths, each by itself."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunebench.channels import in_mode
from prunebench.channels.members import named_modules
from prunebench.channels.untouched import untouched
from prunebench.measure.engines import INPUT, OUTPUT, Runner, require_packages, runner, session

#: layers without weights, whose time depends on the channels of their input
ELEMENTWISE = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.SiLU, nn.GELU, nn.Sigmoid)
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
#: seconds that a layer is timed for, and the fewest and most passes
SECONDS, FEWEST, MOST = 0.02, 3, 300


@dataclass(frozen=True, eq=False)
class Seen:
    """One call of a layer in the forward of a network.

    Attributes:
        name: name of the module.
        module: the module.
        shape: shape of its input, without the batch.
    """

    name: str
    module: nn.Module
    shape: tuple[int, ...]


def calls(network: nn.Module, example: Tensor) -> list[Seen]:
    """Returns the calls of all layers that can be timed by themselves, in forward order."""
    found: list[Seen] = []

    def noting(name: str) -> Callable[..., None]:
        def note(module: nn.Module, given: tuple[Any, ...], _: Any) -> None:
            if given and isinstance(given[0], Tensor) and given[0].dim() >= 2:
                found.append(Seen(name, module, tuple(given[0].shape[1:])))

        return note

    hooks = [
        module.register_forward_hook(noting(name))
        for name, module in named_modules(network)
        if kind(module)
    ]
    try:
        with in_mode(network), untouched(network), torch.no_grad():
            network(example)
            return [*found]  # a copy, since `untouched` empties lists that hooks filled
    finally:
        for hook in hooks:
            hook.remove()


def kind(module: nn.Module) -> str:
    """Returns the kind of layer that `module` is; "" for one that cannot be timed by itself."""
    if type(module) in (nn.Conv2d, nn.Linear) and "weight" not in module._parameters:
        return ""  # its weight is computed from other parameters
    if type(module) is nn.Conv2d and not isinstance(module.padding, str):
        if module.groups == 1:
            return "conv"
        return "depthwise" if module.groups == module.in_channels == module.out_channels else ""
    if type(module) is nn.Linear:
        return "linear"
    if type(module) in (nn.BatchNorm2d, nn.PReLU, *ELEMENTWISE, *POOLS):
        return "elementwise"
    return ""


def sized(module: nn.Module, inputs: int, outputs: int) -> nn.Module:
    """Returns a layer like `module` with these channels; its weights have arbitrary values."""
    if isinstance(module, nn.Linear):
        return nn.Linear(inputs, outputs, bias=module.bias is not None)
    if isinstance(module, nn.Conv2d):
        made = copy.copy(module)
        made._parameters = dict(module._parameters)
        deep = module.groups > 1
        made.in_channels, made.out_channels, made.groups = inputs, outputs, inputs if deep else 1
        size = (outputs, 1 if deep else inputs, *module.kernel_size)
        made.weight = nn.Parameter(torch.randn(size) / 10, requires_grad=False)
        if module.bias is not None:
            made.bias = nn.Parameter(torch.zeros(outputs), requires_grad=False)
        return made
    if isinstance(module, nn.BatchNorm2d):
        return nn.BatchNorm2d(inputs, affine=module.affine).eval()
    if isinstance(module, nn.PReLU):
        return nn.PReLU(inputs if module.num_parameters > 1 else 1)
    return copy.deepcopy(module)


def described(module: nn.Module, shape: tuple[int, ...]) -> str:
    """Returns all that the time of a layer depends on, apart from its widths."""
    if isinstance(module, nn.Conv2d):
        deep = "depthwise " if module.groups > 1 else ""
        settings = (module.kernel_size, module.stride, module.padding, module.dilation)
        return f"{deep}conv {settings} bias={module.bias is not None} {shape[1:]}"
    if isinstance(module, nn.Linear):
        return f"linear bias={module.bias is not None}"
    return f"{str(module).partition('(')[0]} {shape[1:]} {getattr(module, 'kernel_size', '')}"


def layer_runner(engine: str, module: nn.Module) -> Runner:
    """Returns a runner of a single layer, as `sized` returns it."""
    return session(_onnx_layer(module)) if engine == "onnxruntime" else module.eval()


def network_runner(engine: str, network: nn.Module, example: Tensor) -> Runner:
    """Returns a runner of a whole network.

    Args:
        engine: ``cpu``, ``cuda`` or ``onnxruntime``.
        network: a network in eval mode, on the CPU.
        example: images [2 or more, C, H, W].
    """
    return runner("onnxruntime" if engine == "onnxruntime" else "eager", network, example)


def fastest(run: Runner, images: Tensor, seconds: float = SECONDS) -> float:
    """Returns the microseconds of the fastest of several passes, the least disturbed one.

    If a single CPU thread computes, its own time counts, without waiting for other processes.

    Args:
        run: runs the layer or network on images.
        images: the images of one pass, on the device of `run`.
        seconds: seconds of timing, unless a few passes take longer.
    """
    alone = images.device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if alone else time.perf_counter
    best, passes = float("inf"), 0
    with torch.inference_mode():
        run(images)
        begun = clock()
        while passes < FEWEST or (clock() - begun < seconds and passes < MOST):
            best, passes = min(best, _pass_seconds(run, images, clock)), passes + 1
    return 1e6 * best


def _pass_seconds(run: Runner, images: Tensor, clock: Callable[[], float]) -> float:
    on_gpu = images.device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(images.device)
    start = clock()
    run(images)
    if on_gpu:
        torch.cuda.synchronize(images.device)
    return clock() - start


def _onnx_layer(module: nn.Module) -> bytes:
    """Returns an ONNX file with a single convolution or linear layer."""
    require_packages("onnx", "onnxscript")
    from onnx import TensorProto, helper, numpy_helper

    held = {k: v.detach().numpy() for k, v in module.named_parameters(recurse=False)}
    settings: dict[str, Any] = {"transB": 1}
    name, dims = "Gemm", 2
    if isinstance(module, nn.Conv2d):
        assert not isinstance(module.padding, str)
        name, dims = "Conv", 4
        settings = {
            "kernel_shape": module.kernel_size, "strides": module.stride, "group": module.groups,
            "pads": [*module.padding, *module.padding], "dilations": module.dilation,
        }  # fmt: skip
    node = helper.make_node(name, [INPUT, *held], [OUTPUT], **settings)
    value, free = helper.make_tensor_value_info, [None] * dims
    graph = helper.make_graph(
        [node],
        "layer",
        [value(INPUT, TensorProto.FLOAT, free)],
        [value(OUTPUT, TensorProto.FLOAT, free)],
        [numpy_helper.from_array(array, key) for key, array in held.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    content: bytes = model.SerializeToString()
    return content


def timed_kinds(engine: str) -> tuple[str, ...]:
    """Returns the kinds of layers to time for an engine; onnxruntime fuses elementwise ones."""
    weighted = ("conv", "depthwise", "linear")
    return weighted if engine == "onnxruntime" else (*weighted, "elementwise")
