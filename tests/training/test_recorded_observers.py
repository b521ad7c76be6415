"""Steps that are recorded although something looks on: bit for bit as they come."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn, optim

from prunebench.checkpoints import Checkpoint
from prunebench.contracts import Moment, Observer, RepeatingObserver
from prunebench.datasets import Data
from prunebench.recipes import Phase
from prunebench.recipes.sparsity import Sparsity
from prunebench.schedules.soft.zeros import ZerosStay
from prunebench.training.loop import train
from prunebench.training.recorder import Recorder
from prunebench.training.stage import Stage
from tests.criteria.aofp import test_observer as aofp
from tests.criteria.cac import test_observer as cac
from tests.schedules.soft import test_observer as soft
from tests.training.test_loop import CPU, Killed, data, network, outcome
from tests.training.test_recorded import LONG, AsItComes, KilledAfter, Tapes


def trained(
    net: Any, images: Data, phase: Phase, recorder: Recorder, *observers: Observer
) -> list[Any]:
    stage = Stage(name="pruning", seed=7, device=CPU, recorder=recorder, observers=observers)
    return outcome(net, train(net, images, phase, stage))


def alike(once: Callable[[Recorder], Any]) -> tuple[Tapes, Any]:
    """Returns the tapes of what ended as it did without, and what it came to."""
    tapes = Tapes()
    found = once(tapes)
    assert found == once(AsItComes())
    return tapes, found


@pytest.mark.parametrize("over", ["group", "network"])
def test_penalties(over: str) -> None:
    phase = replace(
        LONG, epochs=12, gamma_l1=0.01, l1_on="read", gamma_hinge=0.02, hinge_share=0.5,
        hinge_over=over,
    )  # fmt: skip

    def once(recorder: Recorder) -> Any:
        rows: list[Any] = []
        penalties = Sparsity(phase, (3, 8, 8), stage="baseline", log=rows.append)
        return trained(network(), data(), phase, recorder, penalties), rows

    tapes, (_, rows) = alike(once)
    assert len(rows) == 12
    # full batches without and with the hinge, validation likewise; the last ends with a count
    assert tapes.counts["replayed"] == 12 * 3 - 6 + 12 - 6


#: ten epochs of five full batches and a smaller one; once removal has begun, at every fifth
GATED, RAMP = replace(cac.PHASE, epochs=10), {"prune_every": 5}


def gated(
    recorder: Recorder, phase: Phase = GATED, checkpoint: Checkpoint | None = None, **changes: Any
) -> Any:
    """Returns what CAC comes to: weights, removals, plan and estimates."""
    net, rows = cac.resnet(), []
    held = {"held": cac.apart(30)} if "holdout" in changes else {}
    work = cac.work(net, cac.both(), rows, shown=cac.apart(40)[0], **held)
    observer = cac.cac(**RAMP, **changes).observer(replace(work, epochs=GATED.epochs))
    stage = Stage(
        name="pruning", seed=7, device=CPU, recorder=recorder, observers=[observer],
        checkpoint=checkpoint,
    )  # fmt: skip
    found = outcome(net, train(net, cac.data(), phase, stage))
    sums = {name: value.tolist() for name, value in observer.estimator.sums.items()}
    return found, rows, observer.plan(), sums


def gates_end(rows: list[Any]) -> int:
    """Returns after how many steps the gates were off."""
    assert [row["gates"] for row in rows].count(False) == 1
    return int(rows[-1]["stage"].split("-")[1])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"estimator": "igg_ce", "scope": "batch"},
        {"estimator": "acc_diff", "score": "soft"},
        {"estimator": "acc_diff", "scope": "batch"},
        {"evidence": 1.64, "recalibrate": 40},
        {"start": 0.5},  # where validation is replayed before there are masks
        {"precision": "bf16"},
    ],
)
def test_steps_with_gates_are_replayed(changes: dict[str, Any]) -> None:
    asked = dict(changes)
    phase = replace(GATED, precision=asked.pop("precision", "float32"))
    tapes, (_, rows, *_) = alike(lambda to: gated(to, phase, **asked))
    off, validations = gates_end(rows), 10
    removals = {*range(int(asked.get("start", 0.2) * 60), off, 5), off}
    # both sizes of batches, with gates and without, come three times before they are replayed
    steps = 60 - len(removals) - 4 * 3
    assert steps <= tapes.counts["replayed"] <= steps + validations
    assert steps > 60 - off + validations  # more than there are without gates


def test_no_step_that_looks_at_held_images_is_replayed() -> None:
    tapes, (_, rows, *_) = alike(lambda to: gated(to, holdout=0.3))
    assert tapes.counts["replayed"] <= 60 - gates_end(rows) - 2 * 3 + 10


def test_no_step_with_gates_that_goes_through_in_parts_is_replayed() -> None:
    phase = replace(GATED, accumulate=2)
    tapes, (_, rows, *_) = alike(lambda to: gated(to, phase))
    assert tapes.counts["replayed"] <= 60 - gates_end(rows) - 2 * 3 + 10


@pytest.mark.parametrize("moments", [[2], [14, 9], [33, 20]])
def test_a_killed_training_with_gates_ends_where_it_would_have(
    moments: list[int], tmp_path: Path
) -> None:
    expected = gated(Tapes())
    checkpoint = KilledAfter(tmp_path / "c.pt", 0.0)
    for moment in moments:
        checkpoint.left = moment
        with pytest.raises(Killed):
            gated(Tapes(), checkpoint=checkpoint)
    found, rows, *rest = gated(Tapes(), checkpoint=checkpoint)
    assert [found, *rest] == [expected[0], *expected[2:]]
    assert rows == expected[1][len(expected[1]) - len(rows) :]


class Asking(RepeatingObserver):
    """Waits for the device when the gradients are there."""

    def start(self, network: nn.Module, optimizer: optim.Optimizer) -> None:
        self.weight = next(network.parameters())

    def after_backward(self, moment: Moment) -> None:
        assert self.weight.grad is not None and float(self.weight.grad.sum()) < 1e9

    def repeats(self, epoch: int, step: int, steps: int) -> bool:
        return True


def test_gates_of_a_recording_that_broke_off_are_forgotten() -> None:
    def once(recorder: Recorder) -> Any:
        net, rows = cac.mlp(), []  # without norms, whose statistics a tape moves all the same
        observer = cac.cac().observer(cac.work(net, cac.both(), rows))
        return trained(net, cac.data(), cac.PHASE, recorder, Asking(), observer), observer.plan()

    tapes = Tapes(insists=False)
    assert once(tapes) == once(AsItComes())
    assert tapes.counts["as it comes"] > 0 and tapes.tapes == 0


@pytest.mark.parametrize("masks", [False, True])
def test_filters_that_are_zeroed_between_epochs(masks: bool) -> None:
    phase = replace(soft.PHASE, epochs=8)

    def once(recorder: Recorder) -> Any:
        net, rows = soft.fresh(), []
        observer = soft.soft(net, rows, epochs=8, asked={"mask_gradients": masks})
        return trained(net, soft.data(), phase, recorder, observer), rows, observer.plan()

    tapes, (_, rows, _) = alike(once)
    assert len({row["returned"] for row in rows}) > 1 or masks
    # four full batches an epoch; the fifth ends with a selection
    assert tapes.counts["replayed"] == 8 * 4 - 3 + 8 - 3


def test_zeros_that_stay() -> None:
    def once(recorder: Recorder) -> Any:
        net = network()
        net[0].weight.data[:2] = 0  # type: ignore[union-attr]
        found = trained(net, data(), LONG, recorder, ZerosStay())
        assert bool((net[0].weight[:2] == 0).all())  # type: ignore[index]
        return found

    assert alike(once)[0].counts["replayed"] == 6 * 4 - 6 + 6 - 3


def test_nothing_is_replayed_where_aofp_scores() -> None:
    phase = replace(aofp.PHASE, epochs=16)  # of five full batches and a smaller one
    layers = 4

    def once(recorder: Recorder) -> Any:
        net, rows = aofp.resnet(), []
        observer = aofp.observer(net, rows=rows, score_every=4, theta=0.35, stagger=False)
        found = trained(net, aofp.data(), phase, recorder, observer)
        told = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
        return found, told, observer.plan()

    tapes, (_, rows, _) = alike(once)
    passed = [int(row["stage"].split("-")[-1]) for row in rows if row["passed"]]
    assert len({*passed}) > 2 and passed[0] < 48 < passed[-1]  # masks change between replays
    # after two steps every fourth scores; each state of the masks is recorded once more
    assert tapes.counts["replayed"] > 16
    assert tapes.tapes <= 3 * (layers + 1)
