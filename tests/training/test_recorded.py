"""Recorded steps on a CPU, where a tape of all operations stands in for CUDA graphs.

The tape plays exactly what was recorded: numbers of Python's keep their values, and reading a
number from the device is an error, as with CUDA graphs.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from prunebench.checkpoints import Checkpoint
from prunebench.errors import TrainingError
from prunebench.recipes import Phase
from prunebench.training.loop import train
from prunebench.training.recorded import KEPT, WARM_UP, Replays
from prunebench.training.recorder import host_draws
from tests.training.test_loop import PHASE, Killed, Shrinker, data, network, outcome, stage

ASKS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default}


class Tape(TorchDispatchMode):
    """Remembers every operation with its tensors, and does them again."""

    def __init__(self) -> None:
        super().__init__()
        self.played: list[tuple[Callable[..., Any], Any, Any, list[Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in ASKS:
            raise RuntimeError("operation not permitted when stream is capturing")
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        leaves = tree_leaves(out)
        if not (func.is_view and same_memory(args[0], leaves)):  # that computes nothing
            self.played.append((func, args, kwargs, leaves))
        return out

    def play(self) -> None:
        for func, args, kwargs, leaves in self.played:
            again = func(*args, **kwargs)
            found = (again,) if isinstance(again, Tensor) else tree_leaves(again)
            for old, new in zip(leaves, found, strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new.reshape(old.shape))  # what followed may have squeezed it in place


def same_memory(one: Tensor, others: list[Tensor]) -> bool:
    place = one.untyped_storage().data_ptr()
    return all(other.untyped_storage().data_ptr() == place for other in others)


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
        {"precision": "bf16", "accumulate": 2, "bias_rate": 2.0},
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
    # full and last batch, of training and of validation: the first is done three times before
    assert tapes.tapes == plain.tapes == 4
    assert tapes.counts == {"as it comes": 6, "replayed": 6 * 4 + 6 * 2 - 6}


@pytest.mark.parametrize("bias_rate", [1.0, 3.0])
def test_recorded_steps_learn_what_unrecorded_ones_do(bias_rate: float) -> None:
    phase = replace(LONG, bias_rate=bias_rate)
    recorded, plain = trained(phase, recorder=Tapes()), trained(phase)
    for ours, theirs in zip(recorded[0], plain[0], strict=True):  # epoch by epoch
        assert ours["lr"] == theirs["lr"]  # not rounded to float32 on the way
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)


def test_work_that_was_not_done_for_long_is_forgotten() -> None:
    tapes, counter = Tapes(), torch.zeros(())
    replays = Replays(tapes, lambda text: None)

    def do(key: object) -> bool:
        """Whether it was replayed."""
        before = tapes.counts["replayed"]
        replays.do(key, lambda: counter.add_(1))
        return tapes.counts["replayed"] > before

    done = [do("first") for _ in range(WARM_UP + 1)]
    assert done == [False] * WARM_UP + [True]
    for key in range(KEPT - 1):
        assert not do(key)
    assert do("first")  # it is the one that was done last now
    for key in range(KEPT, 2 * KEPT - 1):
        assert not do(key)
    assert do("first")
    for key in range(2 * KEPT, 3 * KEPT):
        assert not do(key)
    assert [do("first") for _ in range(2)] == [False, True]  # once is enough by now
    assert tapes.tapes == 2
    assert counter == sum(tapes.counts.values())


class Poison(nn.Module):
    """Multiplies by what is not a number at one step, which the device counts."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.at = at

    def forward(self, images: Tensor) -> Tensor:
        if not self.training:
            return images
        self.count.add_(1)
        return images.masked_fill(self.count == self.at, torch.nan)


@pytest.mark.parametrize(
    ("at", "place"), [(2, "epoch 1 of 6, step 2 of 4"), (21, "epoch 6 of 6, step 1 of 4")]
)
def test_a_loss_that_is_not_finite_is_found_in_recorded_steps(at: int, place: str) -> None:
    tapes = Tapes()
    with pytest.raises(TrainingError, match=f"the loss is not finite at {place}"):
        trained(LONG, nn.Sequential(Poison(at), *network()), recorder=tapes)
    assert (tapes.tapes > 0) == (at > 4)


class KilledAfter(Checkpoint):
    """Saves after every step, in a process that is killed after a number of saves."""

    left = 10**9

    def save(self, state: Any) -> None:
        super().save(state)
        self.left -= 1
        if self.left == 0:
            raise Killed


@pytest.mark.parametrize("moments", [[2], [14], [4, 11]])
def test_a_killed_training_ends_where_it_would_have(moments: list[int], tmp_path: Path) -> None:
    expected = trained(LONG, recorder=Tapes())
    checkpoint = KilledAfter(tmp_path / "c.pt", 0.0)
    for moment in moments:
        checkpoint.left = moment
        with pytest.raises(Killed):
            trained(LONG, recorder=Tapes(), checkpoint=checkpoint)
    assert trained(LONG, network(77), recorder=Tapes(), checkpoint=checkpoint) == expected


@pytest.mark.parametrize("first", [Tapes, lambda: None])
def test_a_checkpoint_is_gone_on_from_either_way(
    first: Callable[[], Tapes | None], tmp_path: Path
) -> None:
    second = None if first() else Tapes()
    phase = replace(LONG, optimizer="adamw", nesterov=False)
    checkpoint = KilledAfter(tmp_path / "c.pt", 0.0)
    checkpoint.left = 10
    with pytest.raises(Killed):
        trained(phase, recorder=first(), checkpoint=checkpoint)
    got, expected = trained(phase, recorder=second, checkpoint=checkpoint), trained(phase)
    for ours, theirs in zip(got[0], expected[0], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    assert second is None or second.tapes > 0


class Asks(nn.Module):
    """Waits for the device in every forward pass."""

    def forward(self, images: Tensor) -> Tensor:
        assert float(images.sum()) < 1e9
        return images


def test_what_cannot_be_recorded_goes_on_as_it_comes() -> None:
    def asking() -> nn.Module:
        return nn.Sequential(Asks(), *network())

    told: list[str] = []

    class Teller(type(stage().progress)):  # type: ignore[misc]
        def note(self, text: str) -> None:
            told.append(text)

    tapes = Tapes(insists=False)
    got = trained(LONG, asking(), recorder=tapes, progress=Teller(quiet=True))
    assert got == trained(LONG, asking(), recorder=AsItComes())
    assert tapes.counts["replayed"] == 0
    assert [line for line in told if "recorded" in line] == [
        "the step cannot be recorded (operation not permitted when stream is capturing); "
        "training continues as with run.compile=off"
    ]
    with pytest.raises(TrainingError, match=r"run\.compile=on: .* try run\.compile=auto"):
        trained(LONG, asking(), recorder=Tapes(insists=True))


@pytest.mark.parametrize(
    "draw", [random.random, np.random.rand, lambda: torch.rand(1), torch.ones(1).bernoulli_]
)
def test_draws_on_the_host_are_seen(draw: Callable[[], object]) -> None:
    before = host_draws()
    torch.rand(3, generator=torch.Generator().manual_seed(1))
    assert host_draws() == before
    draw()
    assert host_draws() != before


def test_nothing_is_recorded_where_something_looks_on() -> None:
    tapes = Tapes()
    assert trained(LONG, recorder=tapes, observers=[Shrinker()]) == trained(
        LONG, observers=[Shrinker()]
    )
    fp16 = replace(LONG, precision="fp16")
    assert trained(fp16, recorder=tapes) == trained(fp16)
    assert tapes.counts == {"as it comes": 0, "replayed": 0}
