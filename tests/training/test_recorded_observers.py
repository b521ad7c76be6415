"""Steps that are recorded although something looks on: bit for bit as they come."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from prunebench.contracts import Observer
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
from tests.training.test_loop import CPU, data, network, outcome
from tests.training.test_recorded import LONG, AsItComes, Tapes


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


def test_nothing_is_replayed_while_gates_are_drawn() -> None:
    phase = replace(cac.PHASE, epochs=10)  # the ramp ends in the third

    def once(recorder: Recorder) -> Any:
        net, rows = cac.resnet(), []
        observer = cac.cac().observer(cac.work(net, cac.both(), rows))
        return trained(net, cac.data(), phase, recorder, observer), rows, observer.plan()

    tapes, (_, rows, _) = alike(once)
    assert [row["gates"] for row in rows].count(False) == 1
    off = int(rows[-1]["stage"].split("-")[1])
    # five full batches and a smaller one an epoch, and a validation; each three times as it comes
    assert tapes.tapes == 3
    assert tapes.counts["replayed"] == 60 - off + 10 - off // 6 - 3 * 3


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
