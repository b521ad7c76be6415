"""Structured pruning of CNNs: run, compare, trust."""

__version__ = "0.1.0"
