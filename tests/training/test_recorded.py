"""Recorded steps on a CPU: a tape of all operations stands in for CUDA's graphs.

What it plays is exactly what was recorded: numbers of Python's stay what they were, and asking
for a number of the device's is an error, as it is there.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.test_loop import PHASE, Killed, Shrinker, data, network, outcome, poisoned, stage
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from prunebench.checkpoints import Checkpoint
from prunebench.datasets import Data
from prunebench.errors import TrainingError
from prunebench.recipes import Phase
from prunebench.training.loop import train

ASKS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default}


class Tape(TorchDispatchMode):
    """Remembers every operation with its tensors, and does them again."""

    def __init__(self) -> None:
        super().__init__()
        self.played: list[tuple[Callable[..., Any], Any, Any, Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func in ASKS:
            raise RuntimeError("operation not permitted when stream is capturing")
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self.played.append((func, args, kwargs, out))
        return out

    def play(self) -> None:
        for func, args, kwargs, out in self.played:
            again = func(*args, **kwargs)
            for old, new in zip(tree_flatten(out)[0], tree_flatten(again)[0], strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@dataclass
class Tapes:
    """A recorder, which does work once while it is recorded and so skips its first replay."""

    insists: bool = True
    counts: dict[str, int] = field(default_factory=lambda: {"as it comes": 0, "replayed": 0})
    tapes: int = 0

    def warm_up(self, work: Callable[[], None]) -> None:
        self.counts["as it comes"] += 1
        work()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        tape = Tape()
        with tape:
            work()
        self.tapes += 1
        fresh = True

        def replay() -> None:
            nonlocal fresh
            self.counts["replayed"] += 1
            if not fresh:
                with torch.inference_mode():
                    tape.play()
            fresh = False

        return replay


class AsItComes(Tapes):
    """Replays by doing the work itself again."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        self.tapes += 1
        return work


#: 6 epochs of 4 steps, the last of 6 images; validated in batches of 8 and 4
LONG = replace(PHASE, epochs=6, lr=0.02, schedule="cosine")


def validated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunebench.training.loop.VAL_PIXELS", 8 * 64)


def trained(phase: Phase, net: nn.Module | None = None, **changes: Any) -> list[object]:
    net = network() if net is None else net
    return outcome(net, train(net, data(), phase, stage(**changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"precision": "bf16", "accumulate": 2},
        {"optimizer": "adamw", "nesterov": False, "ema": 0.9, "decay": "all"},
    ],
)
def test_recorded_steps_do_bit_for_bit_what_they_do_as_they_come(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    validated(monkeypatch)
    phase = replace(LONG, **changes)
    tapes, plain = Tapes(), AsItComes()
    assert trained(phase, recorder=tapes) == trained(phase, recorder=plain)
    # full and last batch, of training and of validation, each done three times before
    assert tapes.tapes == plain.tapes == 4
    assert tapes.counts == {"as it comes": 12, "replayed": 6 * 4 + 6 * 2 - 12}
