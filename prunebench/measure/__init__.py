"""Measurements: the costs of a network (parameters, MACs, bytes, time) and its accuracy."""

from prunebench.measure.accuracy import answers, evaluate
from prunebench.measure.costs import (
    CONVENTION,
    LayerCost,
    layer_costs,
    macs,
    params,
    size_bytes,
)
from prunebench.measure.latency import latencies
from prunebench.measure.verification import lfw_accuracy, verify

__all__ = [
    "CONVENTION",
    "LayerCost",
    "answers",
    "evaluate",
    "latencies",
    "layer_costs",
    "lfw_accuracy",
    "macs",
    "params",
    "size_bytes",
    "verify",
]
