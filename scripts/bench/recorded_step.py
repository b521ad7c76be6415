"""Measures the parts of a recorded step on CUDA: how much faster it is without each of them.

    python scripts/bench/recorded_step.py [--model vgg16] [--batch 128] [--replays 300]
        [--inductor default [--compile-only]] [--out parts.json]

A step is forward, loss, backward and SGD on one fixed batch, in bf16 and channels_last, recorded as
in the product and replayed. Each row leaves a part out, or does it in another way; --inductor adds
the step after ``torch.compile`` in the mode named. The table is printed, and --out written, after
every row. On a CPU nothing is recorded; there it only shows that the script runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from result import Row, arguments, markdown, write
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from prunebench.channels import Plan, slim, trace
from prunebench.measure.costs import macs
from prunebench.models import ModelSpec
from prunebench.options import option
from prunebench.records.environment import device_name
from prunebench.training.aligned import align
from prunebench.training.forward import Forward
from prunebench.training.recorder import CudaGraphs, Work

ABOUT = """One step (forward, loss, backward, SGD with momentum) of one batch on the device, as in
a real training: bf16 under autocast with float32 weights, channels_last, recorded as one CUDA
graph and replayed; milliseconds of wall time, mean of the replays. Each row leaves out one part or
replaces it; times as fast compares with the first row. Slim networks keep half of the channels."""


@dataclass
class Step:
    """Holds a training step and the ways in which rows vary it."""

    network: nn.Module
    images: Tensor
    labels: Tensor
    half: torch.dtype = torch.bfloat16
    call: Callable[[Tensor], Tensor] | None = None
    learns: bool = True
    updates: bool = True
    aligned: bool = True
    behind: Callable[[], None] = lambda: None
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        """Makes the optimizer, and the function to call unless `call` is given."""
        if self.call is None:
            aligned = align(self.network, self.images[:8]) if self.aligned else None
            self.call = Forward(self.network, self.half, aligned)
        rate: Any = torch.tensor(0.01, device=self.images.device)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4, fused=True
        )

    def __call__(self) -> None:
        """Does the step."""
        device = self.images.device.type
        self.optimizer.zero_grad()
        with torch.autocast(device, self.half, cache_enabled=False):
            assert self.call is not None
            logits = self.call(self.images)
        loss = functional.cross_entropy(logits.float(), self.labels)
        if self.learns:
            loss.backward()
            self.behind()
        if self.learns and self.updates:
            self.optimizer.step()


class Apart(TorchFunctionMode):
    """Computes the kernels' gradients of convolutions on a second stream."""

    def __init__(self, device: torch.device, half: torch.dtype) -> None:
        super().__init__()
        self.half = half
        self.side: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self.side = torch.cuda.Stream(device)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls `func`, or the convolution below in place of torch's."""
        if func is not functional.conv2d:
            return func(*args, **kwargs or {})
        x, weight, bias, *how = args
        return _Convolution.apply(self, how, x.to(self.half), weight, bias)

    def join(self) -> None:
        """Makes the current stream wait for the gradients."""
        if self.side is not None:
            torch.cuda.current_stream().wait_stream(self.side)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mode: Apart, how: Any, x: Tensor, weight: Tensor, bias: Any) -> Tensor:
        """Convolves in half precision."""
        ctx.mode, ctx.how, ctx.biased = mode, how, bias is not None
        weight = weight.to(mode.half)
        ctx.save_for_backward(x, weight)
        bias = bias.to(mode.half) if ctx.biased else None
        return torch.conv2d(x, weight, bias, *how)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """Computes the kernel's gradient on the second stream, the input's on the current one."""
        x, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.how
        sizes = [len(weight)] if ctx.biased else None
        how = (sizes, stride, padding, dilation, False, [0, 0], groups)
        backward, side = torch.ops.aten.convolution_backward, ctx.mode.side
        if side is not None:
            side.wait_stream(torch.cuda.current_stream())
            for read in (grad, x, weight):  # keep their memory until the second stream is done
                read.record_stream(side)
        with torch.cuda.stream(side):
            _, kernels, biases = backward(grad, x, weight, *how, (False, True, ctx.biased))
            kernels = kernels.float()
            biases = biases.float() if ctx.biased else None
        inputs = None
        if ctx.needs_input_grad[2]:
            inputs = backward(grad, x, weight, *how, (True, False, False))[0]
        return None, None, inputs, kernels, biases


def without(network: nn.Module, kind: type[nn.Module]) -> nn.Module:
    """Returns the network with modules of class `kind` replaced by identities."""
    for name, module in [*network.named_modules()]:
        if isinstance(module, kind):
            network.set_submodule(name, nn.Identity())
    return network


def _within(mode: TorchFunctionMode, network: nn.Module, images: Tensor) -> Tensor:
    with mode:
        return network(images)  # type: ignore[no-any-return]


def slimmed(
    network: nn.Module, example: Tensor, fewer: int, multiple: int | None = None
) -> nn.Module:
    """Returns the network with about half of each group: a multiple of 8 minus `fewer` channels.

    With `multiple`, the groups keep uneven shares, as criteria leave them: 45 to 60 % of their
    channels, rounded up to this multiple.
    """
    channels = trace(network, example)
    counts = {group.name: max(8, round(group.size / 16) * 8) - fewer for group in channels.groups}
    if multiple:
        for number, group in enumerate(channels.groups):
            share = 0.45 + 0.05 * (number % 4)
            counts[group.name] = min(group.size, -(-int(share * group.size) // multiple) * multiple)
    return slim(network, channels, Plan({name: range(count) for name, count in counts.items()}))


def steps(
    build: Callable[[], nn.Module], images: Tensor, labels: Tensor, mode: str | None
) -> Iterator[tuple[str, Step]]:
    """Yields the name and the step of each row."""
    yield "complete", Step(build(), images, labels)
    yield "forward alone", Step(build(), images, labels, learns=False)
    yield "without SGD", Step(build(), images, labels, updates=False)
    network = build()
    yield "separate casts and norm counters", Step(network, images, labels, call=network)
    network, apart = build(), Apart(images.device, torch.bfloat16)
    together = partial(_within, apart, network)
    yield (
        "kernels' gradients apart",
        Step(network, images, labels, call=together, behind=apart.join),
    )
    yield "without norms", Step(without(build(), _BatchNorm), images, labels)
    yield "without ReLU", Step(without(build(), nn.ReLU), images, labels)
    yield "float16", Step(build(), images, labels, half=torch.float16)
    few = len(labels) // 2
    yield "half of the batch", Step(build(), images[:few], labels[:few])
    for said, fewer in (("multiples of 8", 0), ("one channel less", 1)):
        network = slimmed(build(), images[:1].contiguous(), fewer)
        network = network.to(memory_format=torch.channels_last)
        yield f"slim, {said}", Step(network, images, labels)
    yield "the same, not padded to eights", Step(network, images, labels, aligned=False)
    contiguous = network.to(memory_format=torch.contiguous_format)
    yield "not padded, contiguous", Step(contiguous, images.contiguous(), labels, aligned=False)
    for multiple in (8, 16, 32, 64):
        network = slimmed(build(), images[:1].contiguous(), 0, multiple)
        network = network.to(memory_format=torch.channels_last)
        yield f"slim, uneven multiples of {multiple}", Step(network, images, labels)
    if mode:
        network = build()
        compiled = torch.compile(network, mode=mode)
        yield f"inductor {mode}", Step(network, images, labels, call=compiled)


def recorded(step: Work, device: torch.device) -> Work:
    """Returns a function that repeats a step: recorded on CUDA, the step itself elsewhere."""
    if device.type != "cuda":
        return step
    recorder = CudaGraphs(torch.device("cuda", torch.cuda.current_device()), insists=True)
    for _ in range(3):
        recorder.warm_up(step)
    return recorder.record(step)


def milliseconds(step: Work, device: torch.device, replays: int) -> float:
    """Returns the milliseconds per step, recorded where possible."""
    step = recorded(step, device)
    step()
    wait(device)
    start = time.perf_counter()
    for _ in range(replays):
        step()
    wait(device)
    return 1000 * (time.perf_counter() - start) / replays


def wait(device: torch.device) -> None:
    """Waits until a GPU has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Prints the table."""
    parser = arguments(__doc__)
    parser.add_argument("--model", default="vgg16")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--replays", type=int, default=300)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--inductor")
    parser.add_argument("--compile-only", action="store_true", help="fill inductor's cache")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    torch.backends.cudnn.benchmark = True
    shape = (3, 32, 32)
    images = torch.randn(asked.batch, *shape, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (asked.batch,), device=device)

    def build() -> nn.Module:
        network = option("model", asked.model, ModelSpec).build(shape, 10).to(device)
        return network.to(memory_format=torch.channels_last).train()

    title = f"Parts of a recorded step of {asked.model}, batch {asked.batch}, {device_name(device)}"
    rows: list[Row] = []
    for name, step in steps(build, images, labels, asked.inductor):
        if asked.compile_only and "inductor" not in name:
            continue
        row: Row = {"step": name}
        try:
            took = milliseconds(step, device, asked.replays)
            first = rows[0]["ms"] if rows else took
            assert isinstance(first, float)
            row |= {
                "ms": took,
                "times as fast": first / took,
                "MMACs": macs(step.network.eval(), images[:1]) / 1e6,
            }
        except RuntimeError as error:  # continue with the other rows
            row["step"] = f"{name}: {str(error).splitlines()[0]}"
        rows.append(row)
        print(markdown(rows[-1:]).splitlines()[-1], flush=True)
        write(asked, title, ABOUT, rows, str(device))
    print(f"{title}\n\n{markdown(rows)}")


if __name__ == "__main__":
    main()
