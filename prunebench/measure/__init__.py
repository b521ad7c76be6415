"""Measurements: what a network costs and what it gets right. Each is defined here, once."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite, prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunebench.channels import in_mode
from prunebench.errors import require_choice
from prunebench.recipes import PRECISIONS
from prunebench.records import Latency, Score
from prunebench.reproducibility import cuda_math, device_name
from prunebench.training.batches import DeviceSplit

#: printed beside every figure
CONVENTION = (
    "params: every learnable number; MACs: multiply-adds of convolution, linear and matmul "
    "layers for one image, without normalisation, activation and pooling"
)
#: pixels per evaluation batch: 128 images of 32 x 32 on a CPU, which keeps them in its cache
#: (1.5 times as fast as 512), and 1,024 on a GPU
_BATCH_PIXELS = {"cpu": 2**17, "cuda": 2**20}
#: seconds of timing per batch size: usually, and at most
_LATENCY_SECONDS = 0.45
_LONGEST_SECONDS = 5.0


@dataclass(frozen=True)
class LayerCost:
    """What one convolution or linear layer costs.

    Attributes:
        name: as in ``network.named_modules()``.
        out_channels, in_channels: of the whole layer, whatever its groups.
        params: its weights and biases.
        macs: multiply-adds for one image, over all its calls.
    """

    name: str
    out_channels: int
    in_channels: int
    params: int
    macs: int


def params(network: nn.Module) -> int:
    """Returns the number of parameters; shared ones count once, buffers do not."""
    return sum(parameter.numel() for parameter in network.parameters())


def macs(network: nn.Module, example: Tensor) -> int:
    """Returns the multiply-adds of one image; `CONVENTION` says which count.

    Args:
        network: left unchanged; a copy in eval mode is traced.
        example: [n, C, H, W] on the network's device; its first image is used.
    """
    return int(_counts(network, example)[""])


def layer_costs(network: nn.Module, example: Tensor) -> list[LayerCost]:
    """Returns a row for every convolution and linear layer, in the order of the modules.

    Args:
        network: left unchanged.
        example: as in `macs`.
    """
    counts = _counts(network, example)
    rows = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            channels = (module.out_features, module.in_features)
        elif isinstance(module, nn.modules.conv._ConvNd):
            channels = (module.out_channels, module.in_channels)
        else:
            continue
        rows.append(LayerCost(name, *channels, params=params(module), macs=int(counts[name])))
    return rows


def _attention_macs(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Both products of scaled dot-product attention, which fvcore does not know.

    Query [..., L, E], key [..., S, E] and value [..., S, V] cost L x S x (E + V) each.
    """
    query, key, value = ([int(n) for n in tensor.type().sizes()] for tensor in inputs[:3])
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _counts(network: nn.Module, example: Tensor) -> Mapping[str, float]:
    """Multiply-adds by module name ("" is the whole network), counted by fvcore."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; the tracer warns of every `if`
        from fvcore.nn import jit_handles
        from fvcore.nn.jit_analysis import JitModelAnalysis

        analysis = JitModelAnalysis(copy.deepcopy(network).eval(), (example[:1],))
        analysis.set_op_handle(
            **{
                "aten::_convolution": jit_handles.conv_flop_jit,
                "aten::linear": jit_handles.linear_flop_jit,
                "aten::addmm": jit_handles.addmm_flop_jit,
                "aten::mm": jit_handles.matmul_flop_jit,
                "aten::matmul": jit_handles.matmul_flop_jit,
                "aten::bmm": jit_handles.bmm_flop_jit,
                "aten::einsum": jit_handles.einsum_flop_jit,
                "aten::scaled_dot_product_attention": _attention_macs,
            }
        )
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.tracer_warnings("none")
        counts: Mapping[str, float] = analysis.by_module()
    return counts


class _Counter(io.RawIOBase):
    """A file that only remembers how much was written to it."""

    size = 0

    def writable(self) -> bool:
        """Says yes."""
        return True

    def write(self, data: Any) -> int:
        """Counts the bytes of `data`."""
        count = memoryview(data).nbytes
        self.size += count
        return count


def size_bytes(network: nn.Module) -> int:
    """Returns the bytes that ``torch.save(network.state_dict())`` takes on disk."""
    counter = _Counter()
    torch.save(network.state_dict(), counter)  # type: ignore[arg-type]
    return counter.size


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode, no gradients and full float32 inside the block; the mode comes back after it."""
    with in_mode(network), torch.inference_mode(), cuda_math(exact=True):
        yield


def evaluate(
    network: nn.Module,
    split: DeviceSplit,
    *,
    batch_size: int | None = None,
    precision: str = "float32",
) -> Score:
    """Returns how many images of `split` the network gets right, in eval mode.

    An image with a logit that is not finite counts as wrong.

    Args:
        network: gives logits [n, classes]; on the split's device; its mode is restored.
        split: images and labels.
        batch_size: images per forward pass; None picks by the size of the images.
        precision: ``float32``, or ``bf16`` for autocast.

    Raises:
        ConfigError: the precision is not known.
    """
    require_choice("precision", precision, PRECISIONS)
    pixels = _BATCH_PIXELS.get(split.device.type, 2**17)
    size = batch_size or max(1, pixels // prod(split.images.shape[-2:]))
    # counted on the device and read once at the end, so that a GPU never waits
    totals = torch.zeros(2, dtype=torch.int64, device=split.device)
    loss = torch.zeros((), dtype=torch.float64, device=split.device)
    autocast = torch.autocast(split.device.type, torch.bfloat16, enabled=precision == "bf16")
    classes = 0
    with _evaluating(network):
        for images, labels in split.batches(size):
            with autocast:
                logits = network(images).float()
            classes = logits.shape[1]
            totals += _correct(logits, labels)
            loss += functional.cross_entropy(logits, labels, reduction="sum").double()
    top1, top5 = totals.tolist()
    mean = float(loss) / max(1, len(split))
    return Score(
        correct=top1,
        correct_top5=top5 if classes > 5 else None,
        seen=len(split),
        loss=mean if isfinite(mean) else None,
    )


def _correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Images whose label ranks first, and among the first five: int64 [2]."""
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = (best == labels[:, None]) & logits.isfinite().all(1, keepdim=True)
    return torch.stack([hits[:, 0].sum(), hits.sum()])


def latencies(
    network: nn.Module, shape: Sequence[int], batch_sizes: Sequence[int]
) -> list[Latency]:
    """Returns the time of a float32 forward pass for each batch size, on the network's device.

    About half a second for each batch size, more where a single pass takes that long.

    Args:
        network: its mode is restored.
        shape: (C, H, W) of one image.
        batch_sizes: images per pass; one that occurs twice is timed once.
    """
    device = next(network.parameters()).device
    with _evaluating(network):
        return [_latency(network, shape, batch, device) for batch in dict.fromkeys(batch_sizes)]


def _latency(network: nn.Module, shape: Sequence[int], batch: int, device: torch.device) -> Latency:
    # of no use here, its import warns of machines that have the CUDA toolkit but no GPU
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils import benchmark

    images = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    threads = torch.get_num_threads()
    timer = benchmark.Timer(
        "network(images)",
        globals={"network": network, "images": images},
        num_threads=threads,  # Timer would take one
    )
    network(images)  # allocates, and lets cuDNN choose
    start = benchmark.timer()
    network(images)
    pass_seconds = benchmark.timer() - start
    # a slow pass gets time for three samples, or the spread would be that of one
    longest = max(_LATENCY_SECONDS, min(2.5 * pass_seconds, _LONGEST_SECONDS))
    timed = timer.adaptive_autorange(
        threshold=0.02, min_run_time=_LATENCY_SECONDS / 20, max_run_time=longest
    )
    return Latency(
        batch=batch,
        device=device_name(device),
        threads=threads,
        median_ms=1e3 * timed.median,
        iqr_ms=1e3 * timed.iqr,
    )
